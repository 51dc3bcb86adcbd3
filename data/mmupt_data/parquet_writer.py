"""Writes rows to parquet files, one bounded row group at a time."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from verl_ext.files import replacing

# A whole row group is in memory. The limits are fixed, so that the same rows make the same bytes.
ROWS_PER_GROUP = 256
BYTES_PER_GROUP = 32 << 20


@contextmanager
def row_writer(
    path: Path, schema: pa.Schema, max_bytes: int = BYTES_PER_GROUP, **options: Any
) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Yield a function that appends a row to a new parquet file.

    Args:
        path: the file; it is incomplete until the block ends, see `verl_ext.files.replacing`.
        max_bytes: bytes of encoded images that a row group may hold; it always holds at least one row.
        options: options of `pyarrow.parquet.ParquetWriter`.
    """
    group: list[Mapping[str, Any]] = []
    size = 0
    with pq.ParquetWriter(path, schema, **options) as writer:

        def flush() -> None:
            nonlocal size
            writer.write_table(pa.Table.from_pylist(group, schema=schema))
            group.clear()
            size = 0

        def append(row: Mapping[str, Any]) -> None:
            nonlocal size
            group.append(row)
            size += sum(len(image["bytes"]) for image in row.get("images") or ())
            if len(group) == ROWS_PER_GROUP or size >= max_bytes:
                flush()

        yield append
        if group:
            flush()


def write_rows(path: Path, schema: pa.Schema, rows: Iterable[Mapping[str, Any]], **options: Any) -> int:
    """Write rows to a parquet file, replacing it as a whole, and return their number; options as for `row_writer`."""
    written = 0
    with replacing(path) as temporary, row_writer(temporary, schema, **options) as append:
        for row in rows:
            append(row)
            written += 1
    return written
