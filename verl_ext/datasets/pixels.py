"""The one place where the pixel limits of images are chosen: those of training are not those of evaluation."""

from omegaconf import DictConfig


def pixel_limits(data: DictConfig, training: bool) -> dict[str, int]:
    """Return `min_pixels` and `max_pixels` from the `data` block of a configuration, those of them that are not null.

    For training they are `data.min_pixels` and `data.max_pixels`, for validation and evaluation
    `data.validation_min_pixels` and `data.validation_max_pixels`.
    """
    prefix = "" if training else "validation_"
    return {name: value for name in ("min_pixels", "max_pixels") if (value := data[f"{prefix}{name}"]) is not None}
