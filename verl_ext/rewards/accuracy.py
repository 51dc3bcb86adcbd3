"""How accurate the pseudo-label and the rewards of a group are, for the metrics of a step.

Computed in the reward workers once the rewards of a group are final, while other groups still generate. Nothing that
votes or rewards sees the ground truth that is used here.
"""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from verl_ext.answers import Comparison, correct
from verl_ext.datasets.ground_truth import read_truth
from verl_ext.rewards.group_request import AccuracyRequest, GroupAccuracy


class AccuracyMeter:
    """Completes vote records with `label_correct` and `reward_accuracy`.

    Args:
        files: training files whose sidecars hold the ground truth by row id.
        comparison: when an answer equals the ground truth.

    Raises:
        ValueError: a sidecar cannot be read, see `read_truth`.
    """

    def __init__(self, files: Iterable[str | Path], comparison: Comparison) -> None:
        self._ground_truth = read_truth(files)
        self._comparison = comparison

    def measure(self, request: AccuracyRequest) -> GroupAccuracy:
        """Compare the pseudo-label and each distinct answer with the ground truth, if it is known."""
        ground_truth = self._ground_truth.get(request.id, request.own_ground_truth)
        if ground_truth is None or not request.answers:
            return GroupAccuracy(request.record)
        pseudo_label = request.record.vote.pseudo_label
        right = {
            answer: correct(answer, ground_truth, self._comparison, request.choices)
            for answer in {*request.answers, pseudo_label}
        }
        trained = zip(request.answers, request.rewards, strict=False)
        errors = [abs(reward - right[answer]) for answer, reward in trained]
        record = replace(
            request.record,
            label_correct=None if pseudo_label is None else right[pseudo_label],
            reward_accuracy=1 - sum(errors) / len(errors),
        )
        return GroupAccuracy(record, ground_truth, [right[answer] for answer in request.answers])
