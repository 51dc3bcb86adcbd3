"""Scores veRL's validation by the rules of evaluation: a function for `reward.custom_reward_function`."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from omegaconf import OmegaConf

from mmupt.benchmarks.benchmark import as_question
from mmupt.evaluation.response_files import Response
from mmupt.evaluation.verdicts import verdicts_of
from verl_ext.rewards.reward_settings import RewardSettings, read_settings


def score(
    data_source: str,
    solution_str: str,
    ground_truth: str | None,
    extra_info: Mapping[str, Any],
    answers: Mapping[str, Any],
) -> float:
    """Return 1 if a response is right by the first rule of its benchmark, otherwise 0.

    `extra_info` has the columns of the row, with `metadata` from its truth sidecar; `answers` is
    `reward.reward_kwargs.answers` of the run. A question that the model could not be asked arrives without a ground
    truth (`verl_ext.datasets.unlabelled_dataset`) and is wrong.
    """
    if ground_truth is None:
        return 0.0
    question = as_question(extra_info, ground_truth, extra_info["metadata"])
    settings = _settings(tuple(answers.items()))
    response = Response(question.id, "greedy", 0, solution_str)
    (verdict,) = verdicts_of([response], {question.id: question}, settings.extraction, settings.comparison)
    return float(next(iter(verdict.right.values())))


@cache
def _settings(answers: tuple[tuple[str, Any], ...]) -> RewardSettings:
    return read_settings(OmegaConf.create({"answers": dict(answers)}))
