"""Read training steps from the metrics that veRL logs. Pure."""

import json
import re
from collections.abc import Mapping
from statistics import fmean

from mmupt.console.events import Step
from verl_ext.metric_names import (
    LABEL_ACCURACY,
    MAJORITY_RATIO,
    REWARD_ACCURACY,
    STEP_SECONDS,
    TOTAL_TOKENS,
    VALIDATION_ACCURACY,
    VALIDATION_SECONDS,
)


def read_step(line: str | bytes, total: int | None) -> Step:
    """Parse a line of veRL's FileLogger. The validation accuracy is the mean over data sources."""
    content = json.loads(line)
    # Non-finite values are logged as null.
    data: Mapping[str, float] = {name: value for name, value in content["data"].items() if value is not None}
    accuracies = [value for name, value in data.items() if re.fullmatch(VALIDATION_ACCURACY, name)]
    seconds = data.get(STEP_SECONDS)
    tokens = data.get(TOTAL_TOKENS)
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
