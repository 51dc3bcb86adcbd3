"""Measures the accuracy of a group's pseudo-label and rewards, for the metrics of a step.

The reward workers do this once the rewards of a group are final, while other groups still generate. The vote and the
rewards never see the ground truth used here.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from verl_ext.answers import Comparison, correct
from verl_ext.datasets.ground_truth import read_truth
from verl_ext.rewards.group_request import AccuracyRequest, GroupAccuracy


class AccuracyMeter:
    """Completes vote records with `label_correct`, `ground_truth_ratio` and `reward_accuracy`.

    Args:
        files: training files whose sidecars hold the ground truth by row id.
        bounds: `GroupReward.bounds`; rewards are scaled to 0 for the lower bound and 1 for the upper bound.

    Raises:
        ValueError: a sidecar cannot be read, see `read_truth`.
    """

    def __init__(
        self,
        files: Iterable[str | Path],
        comparison: Comparison,
        bounds: tuple[float, float] | None = (0.0, 1.0),
    ) -> None:
        self._ground_truth = read_truth(files)
        self._comparison = comparison
        self._bounds = bounds

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
        correct_answers = [right[answer] for answer in request.answers]
        record = replace(
            request.record,
            label_correct=None if pseudo_label is None else right[pseudo_label],
            ground_truth_ratio=fmean(correct_answers),
            reward_accuracy=self._reward_accuracy(request.rewards, correct_answers),
        )
        return GroupAccuracy(record, ground_truth, correct_answers)

    def _reward_accuracy(self, rewards: Sequence[float], right: Sequence[bool]) -> float | None:
        """Return 1 minus the mean distance between scaled rewards and correctness, None for rewards outside the bounds.

        `rewards` may be shorter than `right`: the last responses voted but are not trained on.
        """
        if self._bounds is None or not all(self._bounds[0] <= reward <= self._bounds[1] for reward in rewards):
            return None
        low, high = self._bounds
        pairs = zip(rewards, right, strict=False)
        return 1 - fmean(abs((reward - low) / (high - low) - is_right) for reward, is_right in pairs)
