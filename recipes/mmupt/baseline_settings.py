"""Declares non-GRPO baselines, and reads and checks the block `mmupt.baseline` of a recipe.

Does not start anything or import veRL. `config/baseline.yaml` documents every key; docs/papers.md cites each method.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from omegaconf import DictConfig, OmegaConf

from mmupt.prompt_templates import placeholders, read_prompt
from verl_ext.registry import Registry
from verl_ext.unknown_keys import is_number, is_whole, refuse_values

PROMPTS = Path(__file__).parent / "baselines" / "prompts"
TrainerName = Literal["sft", "dpo"]
Scale = Literal["points", "yes_no"]


class BaselineStage(NamedTuple):
    """A training set and the trainer, `sft` or `dpo`, that continues from the policy of the previous stage."""

    trainer: TrainerName
    # Maps a `mmupt.baselines.stage_context.StageContext` to `TrainingExample`s.
    examples: Callable[[Any], Iterator[Any]]


class Placeholders(NamedTuple):
    """The placeholders that a prompt may have, and those of which it must have at least one (empty: no such rule)."""

    allowed: tuple[str, ...] = ()
    needed: tuple[str, ...] = ()


# Placeholders of a prompt about a single response.
ABOUT_A_RESPONSE = Placeholders(("question", "response", "answer"), ("response", "answer"))


@dataclass(frozen=True)
class Baseline:
    """A method that trains on examples made from the policy's responses.

    name: value of `mmupt.baseline.method` that selects the method.
    stages: in training order.
    prompts: the keys of `mmupt.baseline.prompts` that the method uses.
    supervised: whether the method reads the ground truth of training rows, which requires `data.supervised`.
    """

    name: str
    stages: tuple[BaselineStage, ...]
    prompts: Mapping[str, Placeholders] = field(default_factory=dict)
    supervised: bool = False


BASELINES: Registry[Baseline] = Registry("baseline", "mmupt.baselines.methods")


@dataclass(frozen=True)
class BaselineSettings:
    """The block `mmupt.baseline`; `prompts` maps the names of the method's prompts to their texts.

    Raises:
        ValueError: a value is not allowed; the message names its key.
    """

    method: str
    rows: int | None
    prompts: Mapping[str, str]
    verdict_samples: int
    judge_scale: Scale
    min_yes: float
    bad_prompt_share: float
    synthesis: Sequence[str]

    def __post_init__(self) -> None:
        allowed_values = {
            "rows": (self.rows is None or is_whole(self.rows, 1), "null or a whole number of at least 1"),
            "verdict_samples": (is_whole(self.verdict_samples, 1), "a whole number of at least 1"),
            "judge_scale": (self.judge_scale in get_args(Scale), f"one of {', '.join(get_args(Scale))}"),
            "min_yes": (is_number(self.min_yes, 0, 1), "a number from 0 to 1"),
            "bad_prompt_share": (is_number(self.bad_prompt_share, 0, 1), "a number from 0 to 1"),
        }
        refuse_values(self, allowed_values, "mmupt.baseline.")
        for name, text in self.prompts.items():
            allowed, needed = BASELINES[self.method].prompts[name]
            found = placeholders(text)
            if not found <= set(allowed) or (needed and found.isdisjoint(needed)):
                raise ValueError(
                    f"mmupt.baseline.prompts.{name}: {text[:60]!r} ... may have "
                    f"{', '.join(f'{{{place}}}' for place in allowed) or 'nothing'} in braces"
                    + (f", and must have {' or '.join(f'{{{place}}}' for place in needed)}" if needed else "")
                )


def read_baseline(config: DictConfig) -> BaselineSettings | None:
    """Read the block `mmupt.baseline` of a recipe; None if its method is null.

    Raises:
        ValueError: a value is not allowed, a prompt is missing or has placeholders that the method does not fill, or
            the recipe has a GRPO setting that the method would ignore.
    """
    content: Any = OmegaConf.to_container(config.mmupt.baseline, resolve=True)
    method = content["method"]
    if method is None:
        return None
    if method not in BASELINES:
        raise ValueError(f"mmupt.baseline.method must be null or one of {', '.join(BASELINES)}, not {method!r}")
    if "rows" not in content:
        raise ValueError(f"mmupt.baseline.method={method} lacks the method's other keys: use method={method} instead")
    baseline = BASELINES[method]
    if config.data.supervised != baseline.supervised:
        raise ValueError(
            f"data.supervised={config.data.supervised} does not go with mmupt.baseline.method={method}: set "
            f"data.supervised={baseline.supervised}, as the method "
            f"{'needs' if baseline.supervised else 'never reads'} the ground truth of training rows"
        )
    if config.data.generated_share is not None:
        raise ValueError("data.generated_share applies to GRPO only: set it to null with mmupt.baseline.method")
    if missing := baseline.prompts.keys() - content["prompts"].keys():
        raise ValueError(f"mmupt.baseline.prompts.{min(missing)} is missing: method={method} needs it")
    values = {one.name: content[one.name] for one in fields(BaselineSettings)}
    values["prompts"] = {name: read_prompt(content["prompts"][name], PROMPTS) for name in baseline.prompts}
    return BaselineSettings(**values)
