"""Records how a run collapsed, and replays the alarm on a finished run with other settings (`mmupt collapse`).

The rule itself is in `verl_ext.collapse`.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

from omegaconf import DictConfig

from mmupt.console import tell
from verl_ext.collapse import Collapse, CollapseAlarm, CollapseRule, History, find_collapse, read_alarm
from verl_ext.collapse.rule import best_of, fall_between, wobble
from verl_ext.config_defaults import SAMPLER, uses
from verl_ext.files import write_json
from verl_ext.scores import Score

STOP = "collapse.json"
# Suggested when a run is stopped; docs/collapse.md has the evidence for each.
REMEDIES = (
    "Remedies to try: fewer steps (trainer.total_training_steps) or a lower actor_rollout_ref.actor.optim.lr; with "
    "the vote, a quorum, such as reward.reward_kwargs.vote.min_share=0.5; method=scrl, which rewards only clear "
    "majorities; method=evol_rl, which rewards responses that are unlike the others."
)


def alarm_of(config: DictConfig) -> CollapseAlarm:
    """Return the alarm of a recipe, which is off unless the recipe uses the project's replay buffer."""
    if uses(config, "trainer.v1.sampler.custom_sampler", SAMPLER):
        return read_alarm(config.trainer.v1.sampler.sampler_kwargs)
    return CollapseAlarm(Path(config.mmupt.run_folder) / "history.jsonl", Path(config.trainer.default_local_dir), None)


def why_unwatched(config: DictConfig) -> str | None:
    """Return why a recipe that should stop on a collapse cannot be watched; None if it can, or need not be."""
    if config.mmupt.stop_on_collapse.enable and not uses(config, "trainer.v1.sampler.custom_sampler", SAMPLER):
        return f"only {SAMPLER[1]} (trainer.v1.sampler.custom_sampler) notices a collapse"
    if not alarm_of(config).is_on or config.trainer.total_training_steps == 0 or config.trainer.test_freq > 0:
        return None
    return f"without validation (trainer.test_freq={config.trainer.test_freq}) no collapse can be noticed"


def write_stop(alarm: CollapseAlarm, run_folder: Path) -> int | None:
    """Record and print how the run collapsed, and return the step of the policy to keep, 0 for the initial model.

    Returns None if the run has not collapsed, and removes the record of an earlier stop. Also returns None if no
    validated checkpoint is left: the last checkpoint is then kept.
    """
    file, collapse = run_folder / STOP, alarm.find_collapse()
    if collapse is None:
        file.unlink(missing_ok=True)
        return None
    last_step, kept_step = max(alarm.history.majority_ratios), alarm.best_step(collapse.measure)
    special = {None: "the last one, as no better one was saved", 0: "the model before training"}
    policy = special.get(kept_step, f"that of step {kept_step}")
    message = (
        f"The run collapsed and was stopped after step {last_step}: {collapse}. The kept policy is {policy}. {REMEDIES}"
    )
    content = {"message": message, "step": last_step, "kept_step": kept_step, **asdict(collapse)}
    write_json(file, content)
    tell(f"{message} To train on instead, set mmupt.stop_on_collapse.enable=false (see docs/collapse.md).")
    return kept_step


def read_stop(run_folder: Path) -> dict[str, Any] | None:
    """Return the record that `write_stop` wrote into a run folder, None if the run was not stopped."""
    file = run_folder / STOP
    return json.loads(file.read_text()) if file.is_file() else None


def replay(history: History, rule: CollapseRule) -> Iterator[tuple[str, Collapse | None]]:
    """Yield a description of each validation, and the collapse that the alarm would have found there, if any."""
    previous_validation = 0
    measures = history.measures()
    for validation in sorted(history.validations):
        ratios = {step: ratio for step, ratio in history.majority_ratios.items() if step <= validation}
        latest = [ratio for step, ratio in ratios.items() if step > previous_validation or step == validation]
        parts = [f"step {validation}: majority ratio {f'{fmean(latest):.3f}' if latest else 'none yet'}"]
        collapse = None
        for measure, validations in measures.items():
            so_far = {step: outcomes for step, outcomes in validations.items() if step <= validation}
            parts.append(f"{measure} {_describe(so_far, validation, rule)}")
            collapse = collapse or find_collapse(ratios, so_far, rule, measure)
        yield ", ".join(parts), collapse
        previous_validation = validation


def _describe(validations: dict[int, dict[str, float]], step: int, rule: CollapseRule) -> str:
    score = Score(tuple(validations[step].values()))
    text = f"{100 * score.value:.1f} ± {100 * score.standard_error:.1f} %"
    earlier = {earlier_step: validations[earlier_step] for earlier_step in sorted(validations)[: -rule.patience]}
    fall = fall_between(validations, best_of(validations), step, rule, wobble(earlier))
    if fall is None or fall.best_step == step:
        return text
    points, error = 100 * (fall.best - fall.value), 100 * fall.standard_error
    needed = 100 * max(fall.min_fall, fall.threshold * fall.standard_error)
    return f"{text} ({points:.1f} ± {error:.1f} points below step {fall.best_step}, more than {needed:.1f} count)"
