"""Time, speed and memory of each phase of a training step, from veRL's metrics, the phase log and memory samples."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from benchmarks.gpu.machine import CardMemory
from mmupt.models import shape_of
from mmupt.training.memory_estimate import estimate
from verl_ext.metric_names import PROMPT_LENGTH, RESPONSE_LENGTH, TIMING_PREFIX, TOTAL_TOKENS

# Phases that process response tokens alone, and all tokens, as in veRL's timing_per_token_ms.
RESPONSE_PHASES = ("gen",)
SEQUENCE_PHASES = ("old_log_prob", "ref", "adv", "update_actor", "step")
# Phases that veRL times within a step.
PHASES_OF_STEP = (
    *("gen", "reward", "old_log_prob", "ref", "values", "adv", "update_critic", "update_actor"),
    *("save_checkpoint", "update_weights"),
)
# Phases of our memory estimate by phase of veRL.
ESTIMATED = {
    "gen": ("generation",),
    "old_log_prob": ("log-probabilities",),
    "update_actor": ("update", "optimizer step"),
    "update_weights": ("weight transfer",),
}


def estimated(config: DictConfig, model: Path) -> dict[str, float] | None:
    """Return the memory estimate in GiB by phase; None if the hardware config states no GPU memory, as on a CPU."""
    shape = shape_of(str(model))
    if config.mmupt.gpu_memory_gib is None or shape is None:
        return None
    return {phase: round(sum(parts.values()), 1) for phase, parts in estimate(config, shape).phases.items()}


def phases_of(metrics: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return seconds and tokens per second of every phase of a step, from veRL's metrics of the step.

    The phase `other` is the part of the step outside veRL's phases.
    """
    sequences = metrics[TOTAL_TOKENS]
    # veRL logs the total of all tokens, but only the mean response length.
    mean = metrics[PROMPT_LENGTH] + metrics[RESPONSE_LENGTH]
    responses = sequences * metrics[RESPONSE_LENGTH] / mean
    phases: dict[str, dict[str, Any]] = {}
    for key, seconds in metrics.items():
        if key.startswith(TIMING_PREFIX):
            phase = key.removeprefix(TIMING_PREFIX)
            tokens = responses if phase in RESPONSE_PHASES else sequences if phase in SEQUENCE_PHASES else None
            rate = None if tokens is None or not seconds else round(tokens / seconds, 1)
            phases[phase] = {"seconds": round(seconds, 3), "tokens_per_second": rate}
    other = phases["step"]["seconds"] - sum(phases[phase]["seconds"] for phase in PHASES_OF_STEP if phase in phases)
    return phases | {"other": {"seconds": round(other, 3), "tokens_per_second": None}}


def summary(
    steps: Sequence[Mapping[str, Mapping[str, Any]]],
    notes: Sequence[Mapping[str, Any]],
    card: CardMemory,
    estimate_gib: Mapping[str, float] | None,
) -> dict[str, dict[str, Any]]:
    """Return, by phase, medians over all steps but the first, and peaks of memory over all steps.

    Args:
        steps: `phases_of` each step.
        notes: lines of the phase log.
        card: memory samples of the cards.
        estimate_gib: the memory estimate by its phases, None on a CPU.
    """
    counted = steps[1:] or steps
    phases = dict.fromkeys([*(phase for step in steps for phase in step), *(note["phase"] for note in notes)])
    summaries = {}
    for phase in phases:
        times = [step[phase] for step in counted if phase in step]
        rates = [time["tokens_per_second"] for time in times if time["tokens_per_second"] is not None]
        spans = [(note["begin"], note["end"]) for note in notes if note["phase"] == phase and "begin" in note]
        peaks = [note for note in notes if note["phase"] == phase and "rank" in note]
        estimates = [estimate_gib[name] for name in ESTIMATED.get(phase, ())] if estimate_gib else []
        values = {
            "seconds": round(statistics.median(time["seconds"] for time in times), 3) if times else None,
            "tokens_per_second": round(statistics.median(rates), 1) if rates else None,
            "card_gib": _rounded(card.peak(spans)),
            # The CPU platform counts no memory.
            "allocated_gib": _rounded(max((note["allocated_gib"] for note in peaks), default=0.0) or None),
            "reserved_gib": _rounded(max((note["reserved_gib"] for note in peaks), default=0.0) or None),
            "estimate_gib": max(estimates, default=None),
        }
        # veRL logs a step's metrics before it has timed the dump of the responses, a phase without values.
        if any(value is not None for value in values.values()):
            summaries[phase] = values
    return summaries


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)
