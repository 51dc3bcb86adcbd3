"""Reads the metrics of a run over its steps from its TensorBoard event files."""

import re
from pathlib import Path
from typing import Any

from verl_ext.metric_names import (
    LABEL_ACCURACY,
    MAJORITY_RATIO,
    RESPONSE_LENGTH,
    REWARD_ACCURACY,
    VALIDATION_ACCURACY,
)

_NAMES = (MAJORITY_RATIO, LABEL_ACCURACY, REWARD_ACCURACY, RESPONSE_LENGTH)
_READ = re.compile("|".join((VALIDATION_ACCURACY, *map(re.escape, _NAMES))))

# Metric name -> step -> value.
Series = dict[str, dict[int, float]]


def read_series(folder: Path, metrics: re.Pattern[str] = _READ) -> Series:
    """Read metrics from the event files under a folder, by default those that reports show; empty without such files.

    A resumed run has several files and may have repeated steps: the value written last counts.
    """
    from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

    events: dict[str, list[Any]] = {}
    for file in folder.rglob("events.out.tfevents.*"):
        # 0 keeps all steps; by default the accumulator keeps a random sample.
        accumulator = EventAccumulator(str(file), size_guidance={SCALARS: 0}, purge_orphaned_data=False).Reload()
        for name in accumulator.Tags()[SCALARS]:
            if metrics.fullmatch(name):
                events.setdefault(name, []).extend(accumulator.Scalars(name))
    return {
        name: {event.step: event.value for event in sorted(scalars, key=lambda event: event.wall_time)}
        for name, scalars in sorted(events.items())
    }
