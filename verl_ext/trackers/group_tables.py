"""Logs a table of groups with their images to the trackers that support tables.

Text of rows and responses is untrusted, so it is escaped for trackers that render Markdown (TensorBoard, trackio).
"""

import html
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from verl_ext.datasets.rows_by_id import RowsById
from verl_ext.images import ImageError, decode
from verl_ext.metric_names import VOTE_PREFIX
from verl_ext.trackers.runs import OncePerStep
from verl_ext.unknown_keys import is_whole, refuse_unknown_keys

NAME = f"{VOTE_PREFIX}groups"
# Maximum side of an image, in pixels.
PICTURE_SIDE = 512
# Maximum number of responses per group, and maximum length of a text.
RESPONSES = 4
CHARACTERS = 600
# Characters with a meaning in Markdown.
_MARKUP = re.compile(r"([\\`*_{}\[\]()#+!|~$-])")


class GroupTables:
    """Logs the groups of some steps, each step once.

    Args:
        number: groups per table, 0 for no tables.
        every: steps between two tables; the first step also has a table.
    """

    def __init__(self, number: int, every: int, train_files: Sequence[str]) -> None:
        self._number, self._every = number, every
        self._rows = RowsById([Path(file) for file in train_files])
        self._step = 0

    def is_due(self, step: int) -> bool:
        """Whether the table of a step is due and has not been logged."""
        return self._number > 0 and step != self._step and (step == 1 or step % self._every == 0)

    def log(self, loggers: Mapping[str, Any], groups: Sequence[Mapping[str, Any]], step: int) -> None:
        """Log groups to every tracker that supports tables and does not yet have the step.

        Training continues when a tracker fails, as with veRL's own metrics; the error is printed.

        Args:
            loggers: trackers by name, veRL's `Tracking.logger`.
            groups: rows of `verl_ext.votes.vote_files.SCHEMA`.
        """
        self._step = step
        shown = groups[: self._number]
        wanted = {
            name: logger
            for name, logger in loggers.items()
            if name in TABLES and not (isinstance(logger, OncePerStep) and not logger.takes(step))
        }
        if not shown or not wanted:
            return
        rows = [table_row(group) for group in shown]
        pictures = [self._pictures(group["id"]) for group in shown]
        for name, logger in wanted.items():
            try:
                TABLES[name](logger, rows, pictures, step)
            # Network and disk errors, and anything that a tracker package may raise.
            except Exception as error:
                print(f"{name} did not get the groups of step {step}: {type(error).__name__}: {error}", flush=True)

    def _pictures(self, id_: str) -> list[Image.Image]:
        """Return the images of a row as thumbnails, without unreadable images."""
        try:
            encoded = [image["bytes"] for image in self._rows.read(id_, ("images",))["images"]]
        except (LookupError, ValueError, OSError):
            return []
        pictures = []
        for content in encoded:
            try:
                image = decode(content).image
            except ImageError:
                continue
            image.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
            pictures.append(image)
        return pictures


def problem_of(block: Any) -> str | None:
    """Return the problem of a `tracked_groups` block, which must set `number` and `every`; None if it is valid."""
    settings = block if isinstance(block, Mapping) else {}
    try:
        refuse_unknown_keys(settings, ("number", "every"))
    except ValueError as error:
        return f"tracked_groups: {error}"
    for name, least in (("number", 0), ("every", 1)):
        if not is_whole(value := settings.get(name), least):
            return f"tracked_groups.{name} must be a whole number of at least {least}, not {value!r}"
    return None


def table_row(group: Mapping[str, Any]) -> dict[str, str | float]:
    """Convert a group to a table row, column -> value, without escaping its text.

    Args:
        group: a row of `verl_ext.votes.vote_files.SCHEMA`.
    """
    responses = group["responses"]
    counts = Counter(response["class"] for response in responses)
    first = {response["class"]: response["answer"] for response in reversed(responses)}
    classes = sorted(number for number in counts if number is not None) + ([None] if None in counts else [])
    answers = [f"{'none' if number is None else first[number]} x {counts[number]}" for number in classes]
    return {
        "id": group["id"],
        "question": _shortened(group["question"]),
        "pseudo-label": _text(group["pseudo_label"]),
        "ground truth": _text(group["ground_truth"]),
        "outcome": _outcome(group),
        "majority ratio": round(group["majority_ratio"], 3),
        "answers": ", ".join(answers),
        "responses": "\n\n".join(
            f"{number}. (reward {response['reward']:g}) {_shortened(response['text'])}"
            for number, response in enumerate(responses[:RESPONSES], start=1)
        ),
    }


def _outcome(group: Mapping[str, Any]) -> str:
    if group["pseudo_label"] is None:
        return "tie" if group["tied"] else "no label"
    return {True: "right", False: "wrong", None: "not known"}[group["label_correct"]]


def _text(value: str | None) -> str:
    return "" if value is None else _shortened(value)


def _shortened(text: str) -> str:
    """Cut the middle out of a long text; replace lone surrogates, which UTF-8 cannot encode, with "?"."""
    text = text.encode(errors="replace").decode()
    if len(text) <= CHARACTERS:
        return text
    return f"{text[: CHARACTERS // 2]} [...] {text[-CHARACTERS // 2 :]}"


def as_markdown(text: str) -> str:
    """Escape a text so that Markdown with embedded HTML shows it verbatim.

    >>> as_markdown("<b>*2*</b>")
    '&lt;b&gt;\\\\*2\\\\*&lt;/b&gt;'
    """
    return _MARKUP.sub(r"\\\1", html.escape(text, quote=False))


Rows = Sequence[Mapping[str, str | float]]
Pictures = Sequence[Sequence[Image.Image]]


def _tensorboard(logger: Any, rows: Rows, pictures: Pictures, step: int) -> None:
    import numpy as np

    cells = [[as_markdown(str(value)).replace("\n", "<br>") for value in row.values()] for row in rows]
    lines = [" | ".join(rows[0]), " | ".join("---" for _ in rows[0]), *(" | ".join(row) for row in cells)]
    logger.writer.add_text(NAME, "\n".join(f"| {line} |" for line in lines), step)
    for number, images in enumerate(pictures, start=1):
        for image in images[:1]:
            logger.writer.add_image(f"{NAME}/{number}", np.asarray(image), step, dataformats="HWC")
    logger.writer.flush()


def _wandb(logger: Any, rows: Rows, pictures: Pictures, step: int) -> None:
    import wandb

    columns = _image_columns(pictures)
    data = [[*row.values(), *map(wandb.Image, images)] for row, images in zip(rows, pictures, strict=True)]
    width = len(rows[0]) + len(columns)
    table = wandb.Table(columns=[*rows[0], *columns], data=[cells + [None] * (width - len(cells)) for cells in data])
    wandb.log({NAME: table}, step=step)


def _mlflow(logger: Any, rows: Rows, pictures: Pictures, step: int) -> None:
    import mlflow

    # mlflow requires every cell of an image column to be an image.
    blank = Image.new("RGB", (1, 1), "white")
    data: dict[str, list[Any]] = {name: [row[name] for row in rows] for name in rows[0]}
    for position, name in enumerate(_image_columns(pictures)):
        data[name] = [images[position] if position < len(images) else blank for images in pictures]
    mlflow.log_table(data, artifact_file=f"{NAME}/step_{step}.json")


def _swanlab(logger: Any, rows: Rows, pictures: Pictures, step: int) -> None:
    import swanlab

    table = swanlab.echarts.Table()
    table.add(headers=list(rows[0]), rows=[list(row.values()) for row in rows])
    captioned = [
        swanlab.Image(image, caption=f"{row['id']}: {row['pseudo-label']} ({row['outcome']})")
        for row, images in zip(rows, pictures, strict=True)
        for image in images
    ]
    swanlab.log({NAME: table, **({f"{VOTE_PREFIX}pictures": captioned} if captioned else {})}, step=step)


def _trackio(logger: Any, rows: Rows, pictures: Pictures, step: int) -> None:
    import trackio

    data = [
        {name: as_markdown(value) if isinstance(value, str) else value for name, value in row.items()}
        | ({"images": [trackio.Image(image) for image in images]} if images else {})
        for row, images in zip(rows, pictures, strict=True)
    ]
    trackio.log({NAME: trackio.Table(data=data)}, step=step)


def _image_columns(pictures: Pictures) -> list[str]:
    return [f"image {number}" for number in range(1, max(map(len, pictures), default=0) + 1)]


# Name of a tracker in `trainer.logger` -> function that logs a table to it.
TABLES: Mapping[str, Callable[[Any, Rows, Pictures, int], None]] = {
    "tensorboard": _tensorboard,
    "wandb": _wandb,
    "mlflow": _mlflow,
    "swanlab": _swanlab,
    "trackio": _trackio,
}
