"""What the votes of one step say about the run. Pure: from scored groups to a flat dict of floats."""

from collections.abc import Sequence
from dataclasses import dataclass

from verl_ext.answers import Comparison, correct


@dataclass(frozen=True)
class ScoredGroup:
    """One prompt after the vote of its surviving responses, and those of them that are trained on.

    answers, rewards: one a response that is trained on. pseudo_label: None where the group elected none. share, tied,
    distinct, no_answer, undecided: of the vote, see `Vote`. voters: responses that voted. seconds: time that scoring
    took. choices: the options of the question, if it has some. truth: for diagnostics only, joined after the fact; None
    where it is not known.
    """

    answers: Sequence[str | None]
    rewards: Sequence[float]
    pseudo_label: str | None
    share: float
    tied: bool
    distinct: int
    no_answer: int
    voters: int
    undecided: int
    seconds: float
    choices: Sequence[str] | None = None
    truth: str | None = None


def vote_metrics(
    groups: Sequence[ScoredGroup],
    expected_responses: int,
    comparison: Comparison = Comparison(),
) -> dict[str, float]:
    """Average the votes of one step.

    Args:
        groups: the groups with at least one surviving response.
        expected_responses: voters of a prompt times the number of prompts of the step, failed groups included.
        comparison: when an answer equals the truth.

    Returns, all under "vote/":
        share: mean share of the majority; distinct_answers: mean number of different answers in a group;
        no_answer_rate: responses without an answer, of all that survived; tie_rate: groups whose vote was tied;
        uninformative_rate: groups in which all rewards are equal, so that they teach nothing;
        all_equal_rate and all_none_rate: groups in which everybody gave the same answer, or nobody gave any;
        too_few_answers_rate: groups with fewer than two answers; failed_responses: their number;
        undecided_pairs: pairs of answers not compared in time; scoring_seconds: both summed over the groups.
        Where the truth of some group is known: pseudo_label_accuracy, the share of true pseudo-labels among groups
        that elected one, and, unless rewards are of another range than 0 to 1, reward_accuracy: one minus the mean
        distance of a reward from the one that the truth would have given.
    """
    voters = sum(group.voters for group in groups)
    metrics = {"vote/failed_responses": float(expected_responses - voters)}
    if not groups:
        return metrics

    def rate(flags: Sequence[bool]) -> float:
        return sum(flags) / len(flags)

    metrics |= {
        "vote/share": sum(group.share for group in groups) / len(groups),
        "vote/distinct_answers": sum(group.distinct for group in groups) / len(groups),
        "vote/no_answer_rate": sum(group.no_answer for group in groups) / voters,
        "vote/tie_rate": rate([group.tied for group in groups]),
        "vote/uninformative_rate": rate([len(set(group.rewards)) == 1 for group in groups]),
        "vote/all_equal_rate": rate([group.distinct == 1 and not group.no_answer for group in groups]),
        "vote/all_none_rate": rate([group.no_answer == group.voters for group in groups]),
        "vote/too_few_answers_rate": rate([group.voters - group.no_answer < 2 for group in groups]),
        "vote/undecided_pairs": float(sum(group.undecided for group in groups)),
        "vote/scoring_seconds": sum(group.seconds for group in groups),
    }
    known = [group for group in groups if group.truth is not None]
    elected = [group for group in known if group.pseudo_label is not None]
    if elected:
        metrics["vote/pseudo_label_accuracy"] = rate(
            [correct(group.pseudo_label, group.truth, comparison, group.choices) for group in elected]
        )
    if known and all(0 <= reward <= 1 for group in known for reward in group.rewards):
        distances = [distance for group in known for distance in _distances(group, comparison)]
        metrics["vote/reward_accuracy"] = 1 - sum(distances) / len(distances)
    return metrics


def _distances(group: ScoredGroup, comparison: Comparison) -> list[float]:
    """How far each reward of a group of known truth is from 1.0 for a right and 0.0 for a wrong answer."""
    right = {answer: correct(answer, group.truth, comparison, group.choices) for answer in set(group.answers)}
    return [abs(reward - right[answer]) for answer, reward in zip(group.answers, group.rewards, strict=True)]
