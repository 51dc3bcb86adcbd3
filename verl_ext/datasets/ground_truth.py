"""Ground truth is kept apart from the data: `X.truth.parquet` has `id` and `answer` of the rows of `X.parquet`.

It is read only for validation and diagnostics. Files used only for evaluation may contain their answers.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from verl_ext.datasets.parquet_reader import own_id, read_columns, read_ids, stored_rows, whole_rows
from verl_ext.datasets.row_format import RowFormatError, id_text, text_or_number

# Columns in which a file without a sidecar may have its answers, in order of preference.
OWN_COLUMNS = ("reward_model", "answer")
# Column names under which data sets publish ground truth, in lower case with "_" for spaces and hyphens.
TRUTH_COLUMNS = frozenset({
    "answer", "answers", "correct", "correct_answer", "correct_choice", "correct_option", "final_answer", "gold",
    "gold_answer", "ground_truth", "groundtruth", "gt", "gt_answer", "label", "labels", "rationale",
    "reference_answer", "reward_model", "solution", "solutions", "target", "truth",
})  # fmt: skip


def sidecar_of(data_file: str | Path) -> Path:
    """Return the path of a data file's truth sidecar, which may not exist."""
    return Path(data_file).with_suffix(".truth.parquet")


def read_truth(data_files: Iterable[str | Path]) -> dict[str, str]:
    """Return the answers of all `data_files` by row id, numbers as text; rows without an answer are left out.

    A file without a sidecar may have its answers in a column `reward_model`, as veRL's own scripts write it, or
    `answer`.

    Raises:
        ValueError: a sidecar lacks a column, an answer is neither text nor a number, or two files give one id different
            answers.
    """
    truth: dict[str, str] = {}
    for data_file in data_files:
        for row in _truth_rows(data_file):
            if row["answer"] is None:
                continue
            try:
                answer = text_or_number(row["answer"], "the answer")
            except RowFormatError as error:
                raise ValueError(f"{row['source']}, id {row['id']}: {error}") from None
            if truth.setdefault(row["id"], answer) != answer:
                raise ValueError(f"{row['source']} contradicts another file about the answer of row {row['id']!r}")
    return truth


def read_metadata(data_files: Iterable[str | Path]) -> dict[str, str]:
    """Return the column `metadata` of the sidecars of `data_files` by row id: JSON objects as text.

    Other values are ignored, because other projects may use a column of this name for something else.
    """
    rows = (row for data_file in data_files for row in _truth_rows(data_file))
    return {row["id"]: row["metadata"] for row in rows if _is_json_object(row["metadata"])}


def _is_json_object(value: Any) -> bool:
    try:
        return isinstance(value, str) and isinstance(json.loads(value), dict)
    except ValueError:
        return False


def check_truth(file: str | Path) -> None:
    """Raise ValueError, also like `read_columns`, if a file for evaluation or supervised training lacks an answer."""
    read_columns(file)
    if not (sidecar_of(file).is_file() or _own_column(file)):
        raise ValueError(
            f"{file} has no truth: {sidecar_of(file)} is missing (columns id and answer), and the file has no column "
            f"{' or '.join(OWN_COLUMNS)} in its place"
        )
    truth = read_truth([file])
    ids = read_ids(file)
    if missing := [(row, id_) for row, id_ in enumerate(ids) if id_ not in truth]:
        source = sidecar_of(file) if sidecar_of(file).is_file() else file
        row, id_ = missing[0]
        raise ValueError(
            f"{source} has no answer for {len(missing)} of the {len(ids)} rows of {file}, the first of them row {row}, "
            f"id {id_}"
        )


def check_held_out(train_files: Iterable[str], val_files: Iterable[str]) -> None:
    """Raise ValueError for a file that is both trained and validated on, even under two paths."""
    trained = {Path(file).resolve() for file in train_files}
    for file in val_files:
        if Path(file).resolve() in trained:
            raise ValueError(f"{file} is in data.train_files and in data.val_files: validate on another file")


def ground_truth_of(row: Mapping[str, Any]) -> str | None:
    """Return the ground truth of a row in veRL's format; None if it is missing or neither text nor a number."""
    reward_model = row.get("reward_model")
    truth = reward_model.get("ground_truth") if isinstance(reward_model, Mapping) else None
    return str(truth) if isinstance(truth, str | int | float | Decimal) else None


def column_of(file: str, column: str) -> list[Any]:
    """Return a column of a Parquet or JSON file in veRL's format, with None for rows without it.

    Raises:
        ValueError: like `read_columns` and `stored_rows`.
    """
    if file.endswith(".parquet"):
        read_columns(file, empty=True)
        return [row.get(column) for row in stored_rows(file, [column])]
    # Imported lazily: takes seconds.
    import datasets

    # Read like veRL (RLHFDataset._read_files_and_tokenize), which then finds the result in the cache.
    rows = datasets.load_dataset("json", data_files=file, split="train")
    return list(rows[column]) if column in rows.column_names else [None] * len(rows)


def problem_of_truths(reward_models: Sequence[Any], source: str) -> str | None:
    """Describe the rows of a source that their `reward_model` cannot grade, see `ground_truth_of`; None without any."""
    wrong = [row for row, found in enumerate(reward_models) if ground_truth_of({"reward_model": found}) is None]
    if not wrong:
        return None
    return (
        f"{source} has no reward_model.ground_truth that is text or a number in {len(wrong)} of {len(reward_models)} "
        f"rows, the first of them row {wrong[0]}, whose reward_model is {str(reward_models[wrong[0]])[:80]}"
    )


def _truth_rows(data_file: str | Path) -> Iterator[dict[str, Any]]:
    """Yield `id`, `answer` (unchanged), `metadata` and `source` of the rows that have answers or metadata."""
    sidecar = sidecar_of(data_file)
    if sidecar.is_file():
        yield from _sidecar_rows(sidecar, data_file)
    elif column := _own_column(data_file):
        for row in whole_rows(data_file, ("id", column)):
            value = row[column]
            answer = value.get("ground_truth") if isinstance(value, Mapping) else value
            yield {"id": row["id"], "answer": answer, "metadata": None, "source": data_file}


def _sidecar_rows(sidecar: Path, data_file: str | Path) -> Iterator[dict[str, Any]]:
    columns = read_columns(sidecar, empty=True)
    rows = pq.read_table(sidecar, columns=[name for name in ("id", "answer", "metadata") if name in columns])
    if "answer" not in columns or not ("id" in columns or _matches_by_order(rows.num_rows, data_file)):
        raise ValueError(f"{sidecar} must have the columns id and answer, but has {', '.join(columns)}")
    for index, row in enumerate(rows.to_pylist()):
        try:
            id_ = id_text(row["id"]) if "id" in columns else own_id(data_file, index)
        except RowFormatError as error:
            raise ValueError(f"{sidecar}, row {index}: {error}") from None
        yield {"id": id_, "answer": row["answer"], "metadata": row.get("metadata"), "source": sidecar}


def _matches_by_order(rows: int, data_file: str | Path) -> bool:
    """Whether a sidecar without ids matches a data file, also without ids, row by row."""
    return "id" not in read_columns(data_file) and pq.read_metadata(data_file).num_rows == rows


def _own_column(data_file: str | Path) -> str | None:
    # A missing file is refused by the dataset, and no error for diagnostics.
    names = read_columns(data_file) if Path(data_file).is_file() else []
    return next((name for name in OWN_COLUMNS if name in names), None)


def truth_columns(schema: pa.Schema | pa.StructType, prefix: str = "") -> list[str]:
    """Return the dotted names of all columns and struct fields that are named like a ground truth."""
    found = []
    for field in schema:
        name = f"{prefix}{field.name}"
        if field.name.lower().replace(" ", "_").replace("-", "_") in TRUTH_COLUMNS:
            found.append(name)
        elif pa.types.is_struct(field.type):
            found += truth_columns(field.type, f"{name}.")
    return found


def check_unlabelled(file: str | Path) -> None:
    """Raise ValueError for a training file with columns of ground truth, and like `read_columns`."""
    read_columns(file)
    if found := truth_columns(pq.read_schema(file)):
        raise ValueError(
            f"{file}: a label-free recipe trains on no file with a truth in it ({', '.join(found)}): move it to "
            f"{sidecar_of(file)} (columns id and answer), or drop it; a supervised recipe (data.supervised=True) reads "
            "the sidecar"
        )
