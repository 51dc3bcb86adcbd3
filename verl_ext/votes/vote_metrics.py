"""Compute the metrics of a training step from the votes of its groups. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum
from statistics import fmean

from verl_ext import metric_names as names
from verl_ext.votes.vote_record import VoteRecord


@dataclass(frozen=True)
class TrainedGroup:
    """The group of one prompt in a training step.

    Attributes:
        record: the vote of all surviving responses.
        rewards: one per response that is trained on.
        policy_versions: number of policy versions from the first to the last that sampled the group.
    """

    record: VoteRecord
    rewards: Sequence[float]
    policy_versions: int = 1


def vote_metrics(groups: Sequence[TrainedGroup], expected_responses: int) -> dict[str, float]:
    """Return the metrics of a step by name. docs/vote.md explains the names.

    Args:
        groups: at least one.
        expected_responses: voters per prompt times prompts per step, including failed groups.
    """
    votes = [group.record.vote for group in groups]
    voters = sum(len(vote.rewards) for vote in votes)
    metrics = {
        names.FAILED_RESPONSES: float(expected_responses - voters),
        names.MAJORITY_RATIO: fmean(vote.majority_ratio for vote in votes),
        names.DISTINCT_ANSWERS: fmean(vote.distinct for vote in votes),
        names.NO_ANSWER_RATE: sum(vote.no_answer for vote in votes) / voters,
        names.TIE_RATE: fmean(vote.tied for vote in votes),
        names.ZERO_ADVANTAGE_RATE: fmean(len(set(group.rewards)) == 1 for group in groups),
        names.ALL_EQUAL_RATE: fmean(vote.distinct == 1 and not vote.no_answer for vote in votes),
        names.ALL_NONE_RATE: fmean(vote.distinct == 0 for vote in votes),
        names.TOO_FEW_ANSWERS_RATE: fmean(len(vote.rewards) - vote.no_answer < 2 for vote in votes),
        names.SCORING_SECONDS: sum(group.record.seconds for group in groups),
        names.POLICY_VERSIONS: fmean(group.policy_versions for group in groups),
    }
    of_groups: dict[str, list[tuple[float | None, int]]] = {
        names.LABEL_ACCURACY: [(group.record.label_correct, 1) for group in groups],
        names.GROUND_TRUTH_RATIO: [(group.record.ground_truth_ratio, 1) for group in groups],
        names.REWARD_ACCURACY: [(group.record.reward_accuracy, len(group.rewards)) for group in groups],
    }
    for name, weighted in of_groups.items():
        if known := [(value, weight) for value, weight in weighted if value is not None]:
            metrics[name] = fsum(value * weight for value, weight in known) / sum(weight for _, weight in known)
    return metrics
