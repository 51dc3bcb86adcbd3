"""How right the pseudo-label and the rewards of a group are, for the metrics of a step.

A step of its own, after the rewards of the group are final: the agent loop asks once it has them, and a reward worker
answers, so that the comparisons run beside the generation of other groups instead of in the trainer. Nothing that
votes or rewards is given a ground truth for it.
"""

from collections.abc import Iterable
from pathlib import Path

from verl_ext.answers import Comparison, correct
from verl_ext.datasets.ground_truth import read_truth
from verl_ext.rewards.group_request import Diagnosis, DiagnosisRequest


class Diagnostician:
    """Knows the ground truth of training rows.

    Args:
        files: training files, whose sidecars hold it by row id; a row that is in none may bring its own.
        comparison: when an answer equals the ground truth.

    Raises:
        ValueError: as `read_truth`.
    """

    def __init__(self, files: Iterable[str | Path], comparison: Comparison) -> None:
        self._truth = read_truth(files)
        self._comparison = comparison

    def diagnose(self, request: DiagnosisRequest) -> Diagnosis:
        """Compare the pseudo-label and every different answer of a group with its ground truth."""
        truth = self._truth.get(request.id, request.own_truth)
        if truth is None or not request.answers:
            return Diagnosis(None, None)
        right = {
            answer: correct(answer, truth, self._comparison, request.choices)
            for answer in {*request.answers, request.pseudo_label}
        }
        distances = [
            abs(reward - right[answer]) for answer, reward in zip(request.answers, request.rewards, strict=True)
        ]
        return Diagnosis(
            pseudo_label_right=None if request.pseudo_label is None else right[request.pseudo_label],
            reward_accuracy=1 - sum(distances) / len(distances),
        )
