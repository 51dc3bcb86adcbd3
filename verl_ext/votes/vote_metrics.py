"""What the votes of one step say about the run. Pure: from scored groups to a flat dict of floats."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class ScoredGroup:
    """One prompt after the vote of its surviving responses, and those of them that are trained on.

    rewards: one per response that is trained on. share, tied, distinct, no_answer, undecided: of the vote, see `Vote`.
    voters: responses that voted. seconds: time that scoring took. policies: versions of the policy that the group was
    sampled from, from the first to the last. pseudo_label_right, reward_accuracy: see `Diagnosis`; None where the
    ground truth is not known.
    """

    rewards: Sequence[float]
    share: float
    tied: bool
    distinct: int
    no_answer: int
    voters: int
    undecided: int
    seconds: float
    pseudo_label_right: bool | None = None
    reward_accuracy: float | None = None
    policies: int = 1


def vote_metrics(groups: Sequence[ScoredGroup], expected_responses: int) -> dict[str, float]:
    """Average the votes of one step.

    Args:
        groups: the groups with at least one surviving response.
        expected_responses: voters of a prompt times the number of prompts of the step, failed groups included.

    Returns, all under "vote/":
        share: mean share of the majority; distinct_answers: mean number of different answers in a group;
        no_answer_rate: responses without an answer, of all that survived; tie_rate: groups whose vote was tied;
        uninformative_rate: groups in which all rewards are equal, so that they teach nothing;
        all_equal_rate and all_none_rate: groups in which everybody gave the same answer, or nobody gave any;
        too_few_answers_rate: groups with fewer than two answers; failed_responses: their number;
        undecided_pairs: pairs of answers not compared in time; scoring_seconds: both summed over the groups;
        policies: mean number of versions of the policy that a group was sampled from, 1 in synchronous training.
        Where the ground truth of some group is known: pseudo_label_accuracy, the share of right pseudo-labels among
        groups that elected one, and, unless rewards are of another range than 0 to 1, reward_accuracy: one minus the
        mean distance of a reward from the one that the ground truth would have given.
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
        "vote/policies": sum(group.policies for group in groups) / len(groups),
    }
    elected = [group.pseudo_label_right for group in groups if group.pseudo_label_right is not None]
    if elected:
        metrics["vote/pseudo_label_accuracy"] = rate(elected)
    known = [group for group in groups if group.reward_accuracy is not None]
    if known and all(0 <= reward <= 1 for group in known for reward in group.rewards):
        right = sum(group.reward_accuracy * len(group.rewards) for group in known if group.reward_accuracy is not None)
        metrics["vote/reward_accuracy"] = right / sum(len(group.rewards) for group in known)
    return metrics
