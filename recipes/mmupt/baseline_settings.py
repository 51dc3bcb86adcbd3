"""The block `mmupt.baseline` of a recipe, read and checked. Starts nothing and imports no veRL.

`config/base.yaml` documents every key; docs/papers.md says whose method each is.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from omegaconf import DictConfig, OmegaConf

from mmupt.prompt_templates import placeholders, read_prompt

PROMPTS = Path(__file__).parent / "baselines" / "prompts"
# The one method that reads the truth of training rows, and needs it.
LABELLED = "rejection_sft"

Trainer = Literal["sft", "dpo"]
Scale = Literal["points", "yes_no"]

# What each method trains with, in this order; for each there is a set of its own.
METHODS: dict[str, tuple[Trainer, ...]] = {
    LABELLED: ("sft",),
    "lmsi": ("sft",),
    "srlm": ("dpo",),
    "genixer": ("sft",),
    "stic": ("dpo", "sft"),
}


class Places(NamedTuple):
    """The places that a prompt may have, and those of which it must have one at least, where there are any."""

    allowed: tuple[str, ...] = ()
    needed: tuple[str, ...] = ()


_ABOUT_A_RESPONSE = Places(("question", "response", "answer"), ("response", "answer"))
# The prompts of each method that has any.
_PROMPTS: dict[str, dict[str, Places]] = {
    "srlm": {"judge": _ABOUT_A_RESPONSE},
    "genixer": {"self_check": _ABOUT_A_RESPONSE},
    "stic": {
        "describe_well": Places(),
        "describe": Places(),
        "describe_badly": Places(),
        "described": Places(("description", "question"), ("description",)),
    },
}


@dataclass(frozen=True)
class BaselineSettings:
    """See `mmupt.baseline` in `config/base.yaml`. `prompts` has the texts of those that the method uses, by name.

    Raises:
        ValueError: a value that is not allowed, naming the key.
    """

    method: str
    rows: int | None
    prompts: Mapping[str, str]
    verdict_samples: int
    judge_scale: Scale
    min_yes: float
    bad_prompt_share: float
    synthesis: tuple[str, ...]

    def __post_init__(self) -> None:
        self._check("rows", self.rows is None or self.rows > 0, "null or a whole number from 1 on")
        self._check("verdict_samples", self.verdict_samples > 0, "a whole number from 1 on")
        self._check("judge_scale", self.judge_scale in get_args(Scale), f"one of {', '.join(get_args(Scale))}")
        for name in ("min_yes", "bad_prompt_share"):
            self._check(name, 0 <= getattr(self, name) <= 1, "a number from 0 to 1")
        for name, text in self.prompts.items():
            allowed, needed = _PROMPTS[self.method][name]
            found = placeholders(text)
            if not found <= set(allowed) or (needed and found.isdisjoint(needed)):
                raise ValueError(
                    f"mmupt.baseline.prompts.{name}: {text[:60]!r} ... may have "
                    f"{', '.join(f'{{{place}}}' for place in allowed) or 'nothing'} in braces"
                    + (f", and must have {' or '.join(f'{{{place}}}' for place in needed)}" if needed else "")
                )

    def _check(self, name: str, is_allowed: bool, allowed: str) -> None:
        if not is_allowed:
            raise ValueError(f"mmupt.baseline.{name} must be {allowed}, not {getattr(self, name)!r}")


def read_baseline(config: DictConfig) -> BaselineSettings | None:
    """Read the block of a recipe; None where its method is null.

    Raises:
        ValueError: a value that is not allowed, a prompt that is not there or has other places than its method fills,
            or a setting of GRPO that the method would not heed.
    """
    content: Any = OmegaConf.to_container(config.mmupt.baseline, resolve=True)
    method = content["method"]
    if method is None:
        return None
    if method not in METHODS:
        raise ValueError(f"mmupt.baseline.method must be null or one of {', '.join(METHODS)}, not {method!r}")
    if config.data.supervised != (method == LABELLED):
        raise ValueError(
            f"data.supervised={config.data.supervised} does not go with mmupt.baseline.method={method}: only "
            f"{LABELLED} reads the truth of training rows, and needs it"
        )
    if config.data.generated_share is not None:
        raise ValueError("data.generated_share is of GRPO alone: with mmupt.baseline.method set it must be null")
    return BaselineSettings(
        method=method,
        rows=content["rows"],
        prompts={name: read_prompt(content["prompts"][name], PROMPTS) for name in _PROMPTS.get(method, ())},
        verdict_samples=content["verdict_samples"],
        judge_scale=content["judge_scale"],
        min_yes=content["min_yes"],
        bad_prompt_share=content["bad_prompt_share"],
        synthesis=tuple(content["synthesis"]),
    )
