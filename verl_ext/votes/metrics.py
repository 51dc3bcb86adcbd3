"""What the votes of one step say about the run. Pure: from scored groups to a flat dict of floats."""

from collections.abc import Sequence
from dataclasses import dataclass

from verl_ext.answers import canonical, equivalent


@dataclass(frozen=True)
class ScoredGroup:
    """The surviving responses of one prompt after the vote.

    answers, rewards: one a response. pseudo_label: None where the group elected none. share, tied: as in `Vote`.
    seconds: time that scoring took. truth: for diagnostics only, joined after the fact; None where it is not known.
    """

    answers: Sequence[str | None]
    rewards: Sequence[float]
    pseudo_label: str | None
    share: float
    tied: bool
    seconds: float
    truth: str | None = None


def vote_metrics(groups: Sequence[ScoredGroup], expected_responses: int) -> dict[str, float]:
    """Average the votes of one step.

    Args:
        groups: the groups with at least one surviving response.
        expected_responses: n times the number of prompts of the step, failed groups included.

    Returns, all under "vote/":
        share: mean share of the majority; distinct_answers: mean number of different answers in a group;
        no_answer_rate: responses without an answer, of all that survived; tie_rate: groups whose vote was tied;
        uninformative_rate: groups in which all rewards are equal, so that they teach nothing;
        all_equal_rate and all_none_rate: those of them where everybody gave the same answer, or nobody gave any;
        too_few_answers_rate: groups with fewer than two answers; failed_responses: their number;
        scoring_seconds: summed over the groups.
        Where the truth of some group is known: pseudo_label_accuracy, the share of true pseudo-labels among groups
        that elected one, and reward_accuracy, the share of responses rewarded as the truth would have rewarded them.
    """
    survived = sum(len(group.answers) for group in groups)
    metrics = {"vote/failed_responses": float(expected_responses - survived)}
    if not groups:
        return metrics

    def rate(flags: Sequence[bool]) -> float:
        return sum(flags) / len(flags)

    given = [[answer for answer in group.answers if answer is not None] for group in groups]
    distinct = [len(set(map(canonical, answers))) for answers in given]
    metrics |= {
        "vote/share": sum(group.share for group in groups) / len(groups),
        "vote/distinct_answers": sum(distinct) / len(groups),
        "vote/no_answer_rate": 1 - sum(map(len, given)) / survived,
        "vote/tie_rate": rate([group.tied for group in groups]),
        "vote/uninformative_rate": rate([len(set(group.rewards)) == 1 for group in groups]),
        "vote/all_equal_rate": rate([group.share == 1.0 for group in groups]),
        "vote/all_none_rate": rate([not answers for answers in given]),
        "vote/too_few_answers_rate": rate([len(answers) < 2 for answers in given]),
        "vote/scoring_seconds": sum(group.seconds for group in groups),
    }
    known = [group for group in groups if group.truth is not None]
    elected = [group for group in known if group.pseudo_label is not None]
    if elected:
        metrics["vote/pseudo_label_accuracy"] = rate([equivalent(g.pseudo_label, g.truth) for g in elected])
    if known:
        metrics["vote/reward_accuracy"] = rate(
            [
                (reward == 1.0) == equivalent(answer, group.truth)
                for group in known
                for answer, reward in zip(group.answers, group.rewards, strict=True)
            ]
        )
    return metrics
