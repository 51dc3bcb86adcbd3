"""Preference pairs about figures for tests of DPO: a careful response is preferred to a glance."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mmupt.baselines.dpo import DpoSettings
from mmupt.tiny.demonstrations import careful, glance
from mmupt_data.figure_task import draw_figure, encode_png, questions, sample_figures

SETTINGS = DpoSettings(
    epochs=2,
    batch_size=4,
    micro_batch_size=2,
    beta=0.1,
    learning_rate=1e-3,
    max_length=96,
    min_pixels=None,
    max_pixels=None,
    save_steps=1,
    seed=1,
    device="cpu",
)


def pair(number: int = 0, **changed: Any) -> dict[str, Any]:
    """Return the pair with this number; `changed` replaces its columns."""
    figure = sample_figures("train", number + 1, 0)[number]
    question = questions(figure, "main")[0]
    row = {
        "id": f"figure-{number}",
        "prompt": [{"role": "user", "content": f"<image>{question.phrasings[0]}"}],
        "images": [{"bytes": encode_png(draw_figure(figure))}],
        "chosen": careful(figure, question),
        "rejected": glance("7"),
    }
    return {**row, **changed}


def write_pairs(file: Path, rows: list[dict[str, Any]]) -> Path:
    """Write pairs to a file as a baseline does and return the file."""
    pq.write_table(pa.Table.from_pylist(rows), file)
    return file
