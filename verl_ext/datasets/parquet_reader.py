"""The one reader of parquet files of rows, used by checks, training, evaluation, synthesis and the leakage check.

It returns the rows of any accepted file in the form of `data/mmupt_data/row_schema.py`, see
`verl_ext.datasets.row_format`. Few rows are in memory at a time. Imports no framework.
"""

import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from verl_ext.datasets.row_format import OTHER_MEDIA, RowFormatError, canonical_row, id_text
from verl_ext.files import is_lfs_pointer, replacing

Item = TypeVar("Item")

# The columns that are read; all others are ignored.
COLUMNS = (
    "id", "data_source", "prompt", "images", "question_type", "choices", "provenance", "licence", "synthesis",
    "response", "extra_info", "agent_name",
)  # fmt: skip
# Rows in memory at a time, with their images.
ROWS_PER_BATCH = 32
FORMAT = "docs/data.md says what a file may look like"

PROMPT = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
IMAGES = pa.list_(pa.struct([("bytes", pa.binary())]))
# The first columns of every file of rows that the project writes.
QUESTION_FIELDS = (
    ("id", pa.string()),
    ("data_source", pa.string()),
    ("prompt", PROMPT),
    ("images", IMAGES),
    ("question_type", pa.string()),
    ("choices", pa.list_(pa.string())),
)
# The columns that a trainer needs. The schema is fixed, so that any files can be trained on together.
TRAINER_SCHEMA = pa.schema(
    [
        *QUESTION_FIELDS,
        # Whether a model wrote the question.
        ("is_generated", pa.bool_()),
        ("response", pa.string()),
        # JSON, because its fields differ from file to file.
        ("extra_info", pa.string()),
        ("agent_name", pa.string()),
    ]
)


class MalformedRow(ValueError):
    """A row cannot be read; the message names the file, row and id, what was found and what is accepted."""

    def __init__(self, file: str | Path, row: int, id_: str, problem: str) -> None:
        super().__init__(f"{file}, row {row}, id {id_}: {problem}")
        self.row, self.id, self.problem = row, id_, problem


def file_name(file: str | Path) -> str:
    """The name of a file, which makes the ids of rows without an id and is the data source of rows without one.

    >>> file_name("/photos/train.parquet")
    'photos-train'
    """
    absolute = Path(file).absolute()
    return f"{absolute.parent.name}-{absolute.stem}"


def own_id(file: str | Path, row: int) -> str:
    """The id of a row without an id column; it stays the same if the folder is moved."""
    return f"{file_name(file)}-{row:06d}"


def read_columns(file: str | Path, empty: bool = False) -> list[str]:
    """Return the columns of a file after checking that rows can be read from it; `empty` allows a file without rows.

    Raises:
        ValueError: the file is missing, is not a parquet file, has no rows, or has two columns of one name.
    """
    with _open(file) as opened:
        names = list(opened.schema_arrow.names)
        rows = opened.metadata.num_rows
    if twice := [name for name, times in Counter(names).items() if times > 1]:
        raise ValueError(f"{file} has more than one column {', '.join(twice)}: leave one of each")
    if not (rows or empty):
        raise ValueError(f"{file} has no rows: it was written by something that failed, or filtered to nothing")
    return names


def require_prompt(file: str | Path) -> None:
    """Raise ValueError for a file without a column `prompt`, and like `read_columns`."""
    if "prompt" not in (names := read_columns(file)):
        raise ValueError(
            f"{file} has no column prompt (found: {', '.join(names)}): {FORMAT}, and "
            "`make data DATASET=images SOURCE=...` makes one of your own images"
        )


def read_rows(file: str | Path, columns: Sequence[str] = COLUMNS) -> Iterator[dict[str, Any] | MalformedRow]:
    """Yield the rows of a file in order, with a MalformedRow in place of each row that cannot be read.

    Args:
        columns: the needed columns besides the id, from COLUMNS. `prompt` must exist; all others may be null.

    Raises:
        ValueError: the file as a whole cannot be read; the message names it.
    """
    names = read_columns(file)
    if "prompt" in columns:
        require_prompt(file)
    with _open(file) as opened:
        needed = _needed(columns, opened.schema_arrow)
        for row, raw in enumerate(_raw_rows(opened, [column for column in names if column in needed], file)):
            yield _row(raw, row, columns, file)


def _row(
    raw: dict[str, Any] | UnicodeDecodeError, row: int, columns: Sequence[str], file: str | Path
) -> dict[str, Any] | MalformedRow:
    id_ = own_id(file, row)
    if isinstance(raw, UnicodeDecodeError):
        return _not_utf8(raw, row, file)
    try:
        # The id comes first, because messages about other columns name it.
        id_ = id_ if raw.get("id") is None else id_text(raw["id"])
        return canonical_row(raw, columns, Path(file).absolute().parent, file_name(file), id_)
    except (RowFormatError, OSError) as error:
        return MalformedRow(file, row, id_, str(error))


def _not_utf8(error: UnicodeDecodeError, row: int, file: str | Path) -> MalformedRow:
    return MalformedRow(file, row, own_id(file, row), f"a text in it is not UTF-8 ({error})")


def read_row(file: str | Path, row: int, columns: Sequence[str] = COLUMNS) -> dict[str, Any]:
    """Return the row with this index, reading only its row group.

    Raises:
        MalformedRow: the row cannot be read.
        IndexError: there is no such row.
        ValueError: like `read_rows`.
    """
    names = read_columns(file)
    with _open(file) as opened:
        first = 0
        for group in range(opened.metadata.num_row_groups):
            rows = opened.metadata.row_group(group).num_rows
            if first <= row < first + rows:
                needed = _needed(columns, opened.schema_arrow)
                raws = _raw_rows(opened, [name for name in names if name in needed], file, group)
                raw = next(islice(raws, row - first, None))
                found = _row(raw, row, columns, file)
                if isinstance(found, MalformedRow):
                    raise found
                return found
            first += rows
    raise IndexError(f"{file} has no row {row}")


def whole_rows(
    file: str | Path, columns: Sequence[str] = COLUMNS, dropped: Collection[str] = ()
) -> Iterator[dict[str, Any]]:
    """Yield the rows of `read_rows` without the `dropped` ids; raise MalformedRow for any other unreadable row."""
    for row in read_rows(file, columns):
        if isinstance(row, MalformedRow):
            if row.id not in dropped:
                raise row
        elif row["id"] not in dropped:
            yield row


def stored_rows(file: str | Path, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield these columns of the rows as they are stored, without columns that the file lacks.

    Raises:
        MalformedRow: a text is not UTF-8.
        ValueError: the file as a whole cannot be read; the message names it.
    """
    with _open(file) as opened:
        for row, raw in enumerate(_raw_rows(opened, list(columns), file)):
            if isinstance(raw, UnicodeDecodeError):
                raise _not_utf8(raw, row, file)
            yield raw


def read_ids(file: str | Path) -> list[str]:
    """The id of every row of a file; raises ValueError like `read_rows`."""
    return [row.id if isinstance(row, MalformedRow) else row["id"] for row in read_rows(file, ("id",))]


def in_batches(rows: Iterable[Item], size: int | None = None) -> Iterator[list[Item]]:
    """Yield the items of an iterable in lists of `size`, by default ROWS_PER_BATCH; the last may be shorter."""
    remaining = iter(rows)
    while batch := list(islice(remaining, size or ROWS_PER_BATCH)):
        yield batch


def write_trainer_rows(files: Iterable[str], target: Path, dropped: Collection[str] = ()) -> None:
    """Write the rows of several files as one Arrow stream of TRAINER_SCHEMA, which can be mapped into memory.

    Args:
        target: replaced as a whole; processes that have mapped the old file keep its content.
        dropped: ids of rows to leave out.

    Raises:
        MalformedRow: a row that is not dropped cannot be read.
        ValueError: like `read_rows`.
    """
    columns = [name for name in COLUMNS if name == "synthesis" or name in TRAINER_SCHEMA.names]
    with (
        replacing(target, concurrent=True) as temporary,
        pa.OSFile(str(temporary), "wb") as sink,
        pa.ipc.new_stream(sink, TRAINER_SCHEMA) as writer,
    ):
        for file in files:
            rows = map(_trainer_row, whole_rows(file, columns, dropped))
            for batch in in_batches(rows):
                writer.write_batch(pa.RecordBatch.from_pylist(batch, schema=TRAINER_SCHEMA))


def _trainer_row(row: dict[str, Any]) -> dict[str, Any]:
    extra = row["extra_info"]
    extra = None if extra is None else json.dumps(extra, default=str)
    return {**row, "is_generated": row["synthesis"] is not None, "extra_info": extra}


def _open(file: str | Path) -> pq.ParquetFile:
    path = Path(file)
    if not path.is_file():
        raise ValueError(f"{file} is {'a folder' if path.is_dir() else 'missing'}: a parquet file is needed")
    try:
        # Read through a buffer, because a row group may exceed the memory.
        return pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20)
    except (pa.ArrowException, OSError) as error:
        why = "a pointer of Git LFS, for which `git lfs pull` gets the file" if is_lfs_pointer(path) else str(error)
        raise ValueError(f"{file} is not a parquet file: {why}") from error


def _needed(columns: Sequence[str], schema: pa.Schema) -> set[str]:
    """The columns of a file that determine these columns of a row."""
    needed = {"id", *columns}
    if "prompt" in columns:
        needed.update(OTHER_MEDIA)
    # A plain-text prompt depends on the number of images, and a missing question type depends on the options.
    if "prompt" in columns and _may_lack_places(schema.field("prompt").type):
        needed.add("images")
    if "question_type" in columns:
        needed.add("choices")
    if "images" in needed and "images" not in schema.names:
        needed.add("image")
        if "image" not in schema.names:
            # Images may be in the parts of the prompt instead.
            needed.add("prompt")
    return needed


def _may_lack_places(prompt: pa.DataType) -> bool:
    """Whether prompts of this type may be plain text or contain images."""
    if pa.types.is_list(prompt) or pa.types.is_large_list(prompt):
        message = prompt.value_type
        return not (
            pa.types.is_struct(message)
            and _is_text(message.field("content").type if "content" in message.names else message)
        )
    return True


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _raw_rows(
    opened: pq.ParquetFile, columns: list[str], file: str | Path, only_group: int | None = None
) -> Iterator[dict[str, Any] | UnicodeDecodeError]:
    groups = range(opened.metadata.num_row_groups) if only_group is None else [only_group]
    # One row group at a time: Arrow cannot make a batch of nested columns from several chunks.
    batches = (batch for group in groups for batch in opened.iter_batches(ROWS_PER_BATCH, [group], columns))
    read = 0
    try:
        for batch in batches:
            yield from _python_rows(batch)
            read += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{file}: rows from {read} on cannot be read: {error}") from error


def _python_rows(batch: pa.RecordBatch) -> Iterator[dict[str, Any] | UnicodeDecodeError]:
    try:
        rows: list[Any] = batch.to_pylist(maps_as_pydicts="lossy")
    except UnicodeDecodeError:
        rows = []
        for row in range(batch.num_rows):
            try:
                rows += batch.slice(row, 1).to_pylist(maps_as_pydicts="lossy")
            except UnicodeDecodeError as error:
                rows.append(error)
    yield from rows
