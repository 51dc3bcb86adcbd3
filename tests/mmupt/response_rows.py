"""Careful responses about figures for tests of supervised fine-tuning; the tiny model rarely gives them."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mmupt.baselines.sft import SftSettings
from mmupt.tiny.demonstrations import careful
from mmupt_data.figure_task import draw_figure, encode_png, questions, sample_figures

SETTINGS = SftSettings(
    epochs=2,
    steps=None,
    batch_size=8,
    micro_batch_tokens=512,
    learning_rate=3e-4,
    warmup_share=0.0,
    max_length=96,
    min_pixels=None,
    max_pixels=None,
    save_steps=100,
    seed=1,
    device="cpu",
)


def responses(count: int) -> list[dict[str, Any]]:
    """Return this number of rows as a baseline selects them."""
    rows = []
    for number, figure in enumerate(sample_figures("train", count, 0)):
        question = questions(figure, "main")[0]
        rows.append(
            {
                "id": f"figure-{number}",
                "prompt": [{"role": "user", "content": f"<image>{question.phrasings[0]}"}],
                "images": [{"bytes": encode_png(draw_figure(figure))}],
                "response": careful(figure, question),
            }
        )
    return rows


def write_responses(file: Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows to a file as a baseline does and return the file."""
    pq.write_table(pa.Table.from_pylist(rows), file)
    return file
