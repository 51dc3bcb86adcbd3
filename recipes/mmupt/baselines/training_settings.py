"""Settings shared by SFT and DPO."""

from dataclasses import dataclass, field
from typing import Any

from verl_ext.datasets.pixel_limits import set_limits
from verl_ext.unknown_keys import is_number, is_whole, refuse_values


def is_positive(value: Any) -> bool:
    """Whether a value is a number above 0."""
    return is_number(value, 0) and value > 0


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """Settings of a training.

    Args:
        epochs: passes over the rows.
        batch_size: rows per update, over all processes.
        learning_rate: peak learning rate.
        max_length: maximum tokens of prompt, images, response and end-of-turn token; a longer row is refused.
        min_pixels, max_pixels: limits that images are scaled to, the same as for the responses; None for no limit.
        save_steps: updates between checkpoints.
        seed: seed of the order of rows.
        device: cpu or cuda.
        processes: number of processes, one per GPU of this machine; the model is sharded across them.
        chat_template_kwargs: arguments of the chat template, the same as for the responses.

    Raises:
        ValueError: a value is invalid; the message names the setting.
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
        refuse_values(
            self,
            {
                **{
                    name: (is_whole(getattr(self, name), 1), "a whole number of at least 1")
                    for name in ("epochs", "batch_size", "max_length", "save_steps", "processes")
                },
                "learning_rate": (is_positive(self.learning_rate), "a number above 0"),
                "device": (self.device in ("cpu", "cuda"), "cpu or cuda"),
            },
        )

    @property
    def limits(self) -> dict[str, int]:
        """`min_pixels` and `max_pixels`, those that are set."""
        return set_limits(self.min_pixels, self.max_pixels)
