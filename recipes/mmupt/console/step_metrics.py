"""Reads the steps of a training from the metrics that veRL hands to its loggers. Pure."""

import json
import re
from collections.abc import Mapping
from statistics import fmean

from mmupt.console.events import Step
from verl_ext.metric_names import LABEL_ACCURACY, MAJORITY_RATIO, REWARD_ACCURACY, VALIDATION_ACCURACY

# veRL's trainer times a step without the validation that follows it (trainer/ppo/v1/trainer_base.py).
STEP_SECONDS = "timing_s/step"
VALIDATION_SECONDS = "timing_s/testing"
TOKENS = "perf/total_num_tokens"


def read_step(line: str | bytes, total: int | None) -> Step:
    """The step of a line of veRL's FileLogger, with the mean validation accuracy over data sources."""
    content = json.loads(line)
    # What is not finite is null there.
    data: Mapping[str, float] = {name: value for name, value in content["data"].items() if value is not None}
    accuracies = [value for name, value in data.items() if re.fullmatch(VALIDATION_ACCURACY, name)]
    seconds = data.get(STEP_SECONDS)
    tokens = data.get(TOKENS)
    return Step(
        content["step"],
        total,
        majority_ratio=data.get(MAJORITY_RATIO),
        label_accuracy=data.get(LABEL_ACCURACY),
        reward_accuracy=data.get(REWARD_ACCURACY),
        validation_accuracy=fmean(accuracies) if accuracies else None,
        tokens_per_second=tokens / seconds if tokens and seconds else None,
        seconds=None if seconds is None else seconds + data.get(VALIDATION_SECONDS, 0.0),
    )
