"""Settings of generation; `config/evaluation.yaml` and its presets document every field."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mmupt.evaluation.response_files import Mode
from mmupt.evaluation.verdicts import EXTRACTIONS, AnyExtraction
from mmupt.hardware import engine_keys
from verl_ext.answers import AnswerRule, Comparison
from verl_ext.datasets.pixel_limits import pixel_limits, set_limits
from verl_ext.files import sha256
from verl_ext.rewards.reward_settings import read_settings
from verl_ext.unknown_keys import is_number, is_whole, refuse_values

# GenerationSettings that change responses only by rounding.
IGNORED_FOR_RESUME = {"replicas", "tensor_parallel_size", "engine"}
# GenerationSettings that determine how the model sees a row; a recipe's model option sets them.
INPUT_FIELDS = ("min_pixels", "max_pixels", "chat_template_kwargs")


def input_settings(config: DictConfig, *, training: bool) -> dict[str, Any]:
    """The INPUT_FIELDS of a recipe, with the pixel limits of training or of validation rows."""
    template: Any = OmegaConf.to_container(config.data.apply_chat_template_kwargs, resolve=True)
    found = {**pixel_limits(config.data, training=training), "chat_template_kwargs": template or None}
    return {name: found.get(name) for name in INPUT_FIELDS}


@dataclass(frozen=True)
class GenerationSettings:
    """See `config/evaluation.yaml` and its presets."""

    model: str
    greedy: bool
    samples: int
    temperature: float
    top_p: float
    max_tokens: int
    max_model_len: int | None
    prompt: str
    system_prompt: str | None
    instruction: str | None
    extraction: AnyExtraction
    min_pixels: int | None
    max_pixels: int | None
    dtype: str
    seed: int
    device: str
    forbidden_openings: tuple[str, ...] = ()
    rule: AnswerRule = "canonical"
    replicas: int = 1
    tensor_parallel_size: int = 1
    engine: dict[str, Any] | None = None
    chat_template_kwargs: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        allowed = {
            "samples": (is_whole(self.samples, 0), "a whole number of at least 0"),
            "max_tokens": (is_whole(self.max_tokens, 1), "a whole number of at least 1"),
            "temperature": (is_number(self.temperature, 0), "a number of at least 0"),
            "top_p": (is_number(self.top_p, 0, 1), "a number from 0 to 1"),
            "prompt": (self.prompt in ("own", "official"), "one of own, official"),
            "extraction": (self.extraction in EXTRACTIONS, f"one of {', '.join(EXTRACTIONS)}"),
            "device": (self.device in ("cpu", "cuda"), "one of cpu, cuda"),
        }
        refuse_values(self, allowed)
        if not self.greedy and not self.samples:
            raise ValueError("no responses are asked for: set greedy=true, or samples to at least 1")
        # Refuses an unknown rule or one whose package is missing before anything is generated.
        Comparison(self.rule)

    @classmethod
    def from_config(cls, config: DictConfig, **resolved: Any) -> "GenerationSettings":
        """Read the fields from a config; `resolved` has the values that depend on the machine."""
        content: Any = OmegaConf.to_container(config, resolve=True)
        values = {**{field.name: content[field.name] for field in fields(cls)}, **resolved}
        return cls(**{**values, "forbidden_openings": tuple(values["forbidden_openings"])})

    @classmethod
    def from_recipe(cls, config: DictConfig, model: str, *, training: bool, **changes: Any) -> "GenerationSettings":
        """Take temperature, lengths, pixel limits and hardware from a recipe.

        `training` selects the pixel limits of training rows instead of validation rows. `changes` are the other fields;
        `greedy`, `samples`, `instruction` and `seed` are required.
        """
        rollout, data = config.actor_rollout_ref.rollout, config.data
        # The recipe's default is sized for training prompts; evaluation questions may be longer.
        own_length = rollout.max_model_len not in (None, data.max_prompt_length + data.max_response_length)
        answers = read_settings(config.reward.reward_kwargs)
        machine = {"device": config.trainer.device, "dtype": rollout.dtype, "replicas": None, "tensor_parallel_size": 1}
        return cls(
            model=model,
            temperature=rollout.temperature,
            top_p=rollout.top_p,
            max_tokens=data.max_response_length,
            max_model_len=rollout.max_model_len if own_length else None,
            prompt="own",
            system_prompt=None,
            extraction=answers.extraction,
            rule=answers.comparison.rule,
            **input_settings(config, training=training),
            **engine_keys(OmegaConf.create(machine)),
            **changes,
        )

    @property
    def limits(self) -> dict[str, int]:
        """`min_pixels` and `max_pixels`, as far as they are set."""
        return set_limits(self.min_pixels, self.max_pixels)

    @property
    def modes(self) -> tuple[Mode, ...]:
        """The modes in which each question is answered."""
        return (*(("greedy",) if self.greedy else ()), *(("sample",) if self.samples else ()))

    def parameters(self, data: Sequence[Path], limit: int | None = None) -> dict[str, Any]:
        """Everything that determines the responses to the questions in these files, with a digest of every file.

        `limit` is the number of questions asked, None for all.
        """
        # Weights are too large to hash: files with the same name, size and modification time count as the same.
        weights = {
            file.name: [file.stat().st_size, file.stat().st_mtime_ns]
            for file in sorted(Path(self.model).glob("*"))
            if file.is_file()
        }
        data_digests = {str(file): sha256(file) for file in data}
        found = {name: value for name, value in asdict(self).items() if name not in IGNORED_FOR_RESUME}
        found["forbidden_openings"] = list(self.forbidden_openings)
        if not self.chat_template_kwargs:
            # Files of earlier versions lack this key.
            del found["chat_template_kwargs"]
        return {**found, "weights": weights, "data": data_digests, "limit": limit}
