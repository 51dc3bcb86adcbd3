"""Files of questions and images for tests of the leakage check."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mmupt_data.row_schema import PROMPT_SCHEMA, Row

SHORT = "Find x."
LONG = "In triangle PQR the angle at P is 47.5 degrees and the side QR is 19.2 long. What is the area of the triangle?"
# A question's text and images.
CONTENT = tuple[str, Sequence[bytes]]


def write(file: Path, rows: Sequence[CONTENT]) -> Path:
    """Write a file of these questions and images, with a tag per image, and return the file."""
    prompt_rows = [
        Row(f"{file.stem}-{index}", "source", "<image>" * len(images) + text, tuple(images), "kind", None)
        for index, (text, images) in enumerate(rows)
    ]
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist([row.without_answer() for row in prompt_rows], schema=PROMPT_SCHEMA), file)
    return file
