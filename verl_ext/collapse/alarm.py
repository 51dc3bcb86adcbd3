"""The collapse alarm of a run: records majority ratios and validations, keeps the best policies, and stops training.

`rule.py` makes the decision. The launcher reads the same history file to find out whether the alarm stopped a run.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from verl_ext.checkpoints.best import keep, kept_checkpoint
from verl_ext.collapse.history import History
from verl_ext.collapse.rule import Collapse, CollapseRule, best_of, find_collapse
from verl_ext.rewards.group_reward import REWARDS, GroupReward
from verl_ext.unknown_keys import read_block


class StoppedOnCollapse(RuntimeError):
    """Training was stopped; the message describes the collapse."""


class CollapseAlarm:
    """Receives every batch from the replay buffer, in training order, and records it in the history file.

    Args:
        checkpoints: veRL's checkpoint folder.
        rule: when a run has collapsed; None to record without ever stopping.
    """

    def __init__(self, history: Path, checkpoints: Path, rule: CollapseRule | None) -> None:
        self.history = History(history)
        self._checkpoints = checkpoints
        self._rule = rule
        self._continued = False
        # Step of the validation checked last, None if there was none; -1 before the first check.
        self._checked: int | None = -1

    @property
    def is_on(self) -> bool:
        """Whether a collapse stops the run."""
        return self._rule is not None

    def before_training(self, step: int) -> None:
        """Before a training step, keep the best policies so far and apply the rule to the latest validation.

        Raises:
            StoppedOnCollapse: the run has collapsed.
        """
        self._continue_from(step - 1)
        latest = max(self.history.validations, default=None)
        if self._rule is None or latest == self._checked:
            return
        self._checked = latest
        keep(self._checkpoints, set(self._best_steps().values()))
        if collapse := self.find_collapse():
            raise StoppedOnCollapse(str(collapse))

    def trained(self, step: int, majority_ratio: float) -> None:
        """Record the majority ratio of a training step."""
        self.history.add_majority_ratio(step, majority_ratio)

    def validated(self, step: int, outcomes: Mapping[str, Sequence[float]]) -> None:
        """Record the outcomes of a validation batch after a step, by question."""
        self._continue_from(step)
        if outcomes:
            self.history.add_validation(step, outcomes)

    def find_collapse(self) -> Collapse | None:
        """Return the collapse of the run, None if there is none or the alarm is off."""
        if self._rule is None:
            return None
        for measure, validations in self.history.measures().items():
            if collapse := find_collapse(self.history.majority_ratios, validations, self._rule, measure):
                return collapse
        return None

    def best_step(self, measure: str) -> int | None:
        """Return the step of the best policy with a checkpoint, by a measure; 0 is the model before training."""
        return self._best_steps().get(measure)

    def _best_steps(self) -> dict[str, int]:
        steps = [step for step in self.history.validations if step == 0 or kept_checkpoint(self._checkpoints, step)]
        return {
            measure: best_of({step: validations[step] for step in steps})
            for measure, validations in self.history.measures().items()
            if steps
        }

    def _continue_from(self, step: int) -> None:
        if not self._continued:
            self._continued = True
            self.history.continue_from(step)


def read_rule(stop_on_collapse: DictConfig) -> CollapseRule | None:
    """Read a block with `enable` and the fields of `CollapseRule`, all optional; return None if it is not enabled.

    Raises:
        ValueError: an unknown key, with the nearest known key, or an invalid value.
    """
    if not isinstance(stop_on_collapse, DictConfig):
        raise ValueError(f"stop_on_collapse must be a block with enable, not {stop_on_collapse!r}")
    block: Any = OmegaConf.to_container(stop_on_collapse, resolve=True)
    try:
        rule = read_block(block, CollapseRule, others=("enable",))
    except ValueError as error:
        raise ValueError(f"stop_on_collapse: {error}") from error
    return rule if block.get("enable", True) else None


def read_alarm(sampler_kwargs: DictConfig) -> CollapseAlarm:
    """Read the sampler's `stop_on_collapse`, `history`, `checkpoints` and `reward_manager`; raises like `read_rule`."""
    is_control = REWARDS.get(sampler_kwargs.reward_manager, GroupReward).is_control
    rule = None if is_control else read_rule(sampler_kwargs.stop_on_collapse)
    return CollapseAlarm(Path(sampler_kwargs.history), Path(sampler_kwargs.checkpoints), rule)
