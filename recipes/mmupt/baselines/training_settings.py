"""Settings that SFT and DPO have in common."""

from dataclasses import dataclass, field
from typing import Any

from verl_ext.datasets.pixel_limits import set_limits


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How to train.

    Args:
        epochs: passes over the rows.
        batch_size: rows per update, over all processes.
        learning_rate: the highest.
        max_length: tokens of a prompt, its images, a response and its end-of-turn token; a longer row is refused.
        min_pixels, max_pixels: limits that images are scaled into, as for the responses; None for no limit.
        save_steps: updates between checkpoints.
        seed: of the order of rows.
        device: cpu or cuda.
        processes: one per GPU of this machine, among which the model is sharded.
        chat_template_kwargs: arguments of the chat template, as for the responses.

    Raises:
        ValueError: an invalid value, naming the setting.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    max_length: int
    min_pixels: int | None
    max_pixels: int | None
    save_steps: int
    seed: int
    device: str
    processes: int = 1
    chat_template_kwargs: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "learning_rate", "max_length", "save_steps", "processes"):
            self._require_positive(name)
        if self.device not in ("cpu", "cuda"):
            raise ValueError(f"device must be cpu or cuda, not {self.device!r}")

    def _require_positive(self, name: str) -> None:
        if not (value := getattr(self, name)) > 0:
            raise ValueError(f"{name} must be more than 0, not {value}")

    @property
    def limits(self) -> dict[str, int]:
        """Those of `min_pixels` and `max_pixels` that are set."""
        return set_limits(self.min_pixels, self.max_pixels)
