"""Your own images, with or without questions: a folder or a parquet file.

A folder is searched for image files of every format that `verl_ext.images` decodes, in the order of their paths; the
manifest counts all other files. Links to files are followed, links to folders are not. The folder's `metadata.jsonl`,
in UTF-8, UTF-16 or UTF-32, holds the questions: one JSON object per line with `file_name` (relative to the folder) or
`file_names`, `question` and, if known, `answer`, `choices`, `question_type` and `id`. An image may occur in several
lines; an image in no line has no question, and a line with `"file_names": []` is a question without an image.

A parquet file has a column `image` or `images`, in any form that docs/data.md names, and optionally the other keys
above as columns, or `prompt` in place of `question`.

A row without a question has the question type `no_question`: it is for synthesis, not for training.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from mmupt_data.catalog import DATA_SETS
from mmupt_data.data_set import DataSet
from mmupt_data.hub import ColumnError, RowError, as_text, with_choices, with_placeholders
from mmupt_data.row_problems import Problem, Rejected
from mmupt_data.row_schema import NO_QUESTION, Provenance, Row
from mmupt_data.writer import WriteOptions, write_dataset
from verl_ext.datasets.parquet_reader import MalformedRow, own_id, read_columns, read_rows
from verl_ext.datasets.row_format import RowFormatError, text_or_number
from verl_ext.files import sha256
from verl_ext.images import suffixes

# Increment this when the same source yields other files.
VERSION = 2
METADATA = "metadata.jsonl"
COLUMNS = ("answer", "choices", "id", "question", "question_type")


@dataclass(frozen=True)
class CustomImages(DataSet):
    """Your own images as a data set. Its only split is `train`."""

    name: str
    summary: str

    def write(self, folder: Path, source: str | None, revision: str | None, options: WriteOptions) -> bool:
        """Write the data set, see `DataSet.prepare`.

        Raises:
            ValueError: no source or a revision is given, or a line of `metadata.jsonl` is malformed.
            FileNotFoundError: the source does not exist, or has no images.
            ColumnError: the parquet file has no images.
        """
        if source is None or revision is not None:
            raise ValueError(f"{self.name}: give a folder or a parquet file as SOURCE, and no REVISION")
        path = Path(source).expanduser()
        if path.is_dir():
            files, left_out = image_files(path)
            if not files and not (path / METADATA).is_file():
                found = ", ".join(f"{one['files']} x {suffix} ({one['first']})" for suffix, one in left_out.items())
                raise FileNotFoundError(f"{path} has no images and no {METADATA}; found: {found or 'nothing'}")
            rows: FolderRows | ParquetRows = FolderRows(self.name, path, files)
        elif path.suffix in (".csv", ".json", ".jsonl", ".tsv"):
            raise ValueError(
                f"{self.name}: SOURCE is a folder of images, with questions in its {METADATA}, or a parquet file, not "
                f"{path}; docs/data.md says how to convert other formats"
            )
        elif path.is_file():
            left_out = {}
            rows = ParquetRows(self.name, path)
        else:
            raise FileNotFoundError(f"{self.name}: there is no {path}")
        parameters = {
            "data_source": self.name,
            "version": VERSION,
            "path": str(source),
            "files": {name: sha256(file) for name, file in rows.sources().items()},
            "left_out": left_out,
            "unread_columns": rows.unread_columns if isinstance(rows, ParquetRows) else [],
        }
        origin = {"path": str(source), "revision": None}
        return write_dataset(folder, {"train": rows}, parameters, source=origin, options=options)


def image_files(folder: Path) -> tuple[list[Path], dict[str, dict[str, Any]]]:
    """The image files below a folder, sorted by path, and a summary of all other files; hidden files are ignored.

    The summary maps a suffix, "no suffix", "broken link" or "linked folder" to {"files": count, "first": path}.
    """
    known = suffixes()
    images, others = [], []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in (*folders, *names):
            file = Path(parent, name)
            if name.startswith(".") or file == folder / METADATA:
                continue
            if file.is_dir():
                if file.is_symlink():
                    others.append(("linked folder", file))
            elif not file.is_file():
                others.append(("broken link" if file.is_symlink() else "no file", file))
            elif file.suffix.lower() in known:
                images.append(file)
            else:
                others.append((file.suffix.lower() or "no suffix", file))
    left_out: dict[str, dict[str, Any]] = {}
    for kind, file in sorted(others, key=lambda other: other[1]):
        left_out.setdefault(kind, {"files": 0, "first": str(file.relative_to(folder))})["files"] += 1
    return sorted(images), left_out


class FolderRows:
    """The rows of a folder: one per line of its metadata, and one per image that no line names."""

    def __init__(self, name: str, folder: Path, files: list[Path]) -> None:
        self._name, self._folder = name, folder
        self._lines: list[dict[str, Any]] = []
        metadata = folder / METADATA
        if metadata.is_file():
            # JSON allows other line ends, such as U+2028, within a string.
            for number, line in enumerate(_text(metadata).split("\n"), start=1):
                if line.strip():
                    self._lines.append(_line(line, f"{metadata}, line {number}"))
        asked = {os.path.normpath(file) for line in self._lines for file in line["file_names"]}
        names = (str(file.relative_to(folder)) for file in files)
        self._lines += [{"file_names": [name]} for name in names if name not in asked]

    def __len__(self) -> int:
        return len(self._lines)

    def __iter__(self) -> Iterator[Row | Rejected]:
        for index, line in enumerate(self._lines):
            yield _row(self._name, str(self._folder), index, line, self._images, tuple(line["file_names"]))

    def sources(self) -> dict[str, Path]:
        """The files that the rows are made from, by name in the folder; missing files are left out."""
        names = dict.fromkeys([METADATA, *(name for line in self._lines for name in line["file_names"])])
        files = {name: self._folder / name for name in names if self._is_inside(name)}
        return {name: file for name, file in files.items() if file.is_file()}

    def _is_inside(self, name: str) -> bool:
        # The file itself may be a link out of the folder, as in a hub cache; a folder in its path may not.
        return (self._folder / name).parent.resolve().is_relative_to(self._folder.resolve())

    def _images(self, line: Mapping[str, Any]) -> tuple[bytes, ...]:
        return tuple(self._read(name) for name in line["file_names"])

    def _read(self, name: str) -> bytes:
        if not self._is_inside(name):
            raise RowError(f"{name} is outside of the folder")
        file = self._folder / name
        if not file.is_file():
            raise RowError(f"there is no file {name}")
        return file.read_bytes()


class ParquetRows:
    """The rows of a parquet file, few of which are in memory at a time.

    unread_columns: columns that are not read, such as `conversations`.
    """

    def __init__(self, name: str, file: Path) -> None:
        self._name, self._file = name, file
        names = read_columns(file)
        if not {"images", "image", "prompt"} & set(names):
            raise ColumnError(f"{file}: a column image or images expected, found {', '.join(names)}")
        # Files made for training have their questions in `prompt`.
        self._has_prompts = "prompt" in names and "question" not in names
        self._columns = [*COLUMNS, "images", "reward_model", *(["prompt"] if self._has_prompts else [])]
        self.unread_columns = [name for name in names if name not in (*self._columns, "image")]

    def sources(self) -> dict[str, Path]:
        """The file, by its name."""
        return {self._file.name: self._file}

    def __len__(self) -> int:
        return int(pq.read_metadata(self._file).num_rows)

    def __iter__(self) -> Iterator[Row | Rejected]:
        for index, row in enumerate(read_rows(self._file, self._columns)):
            yield self._rejected(index, row.problem) if isinstance(row, MalformedRow) else self._read(index, row)

    def _read(self, index: int, row: dict[str, Any]) -> Row | Rejected:
        images = tuple(image["bytes"] for image in row.pop("images"))
        if row["id"] == own_id(self._file, index):
            row["id"] = None
        if row["answer"] is None:
            row["answer"] = (row["reward_model"] or {}).get("ground_truth")
        if not self._has_prompts:
            return _row(self._name, str(self._file), index, row, lambda _: images)
        if len(row["prompt"]) > 1:
            return self._rejected(index, "the prompt has several messages, and a question is one of the user's")
        question = row["prompt"][0]["content"]
        made = _row(self._name, str(self._file), index, {**row, "question": question}, lambda _: images)
        # The prompt already has its options and image placeholders.
        return replace(made, question=question) if isinstance(made, Row) else made

    def _rejected(self, index: int, problem: str) -> Rejected:
        return Rejected(f"{self._name}-train-{index:06d}", (Problem("row", problem),))


def _text(file: Path) -> str:
    content = file.read_bytes()
    try:
        return content.decode(json.detect_encoding(content))
    except UnicodeDecodeError as error:
        number = content.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{file}, line {number}: byte {content[error.start]:#04x} is not {error.encoding.upper()}. Save the file "
            "as UTF-8, for example by `iconv -f WINDOWS-1252 -t UTF-8`"
        ) from error


def _line(line: str, where: str) -> dict[str, Any]:
    try:
        # Control characters in a text are a problem of its row, see `mmupt_data.row_problems`.
        row = json.loads(line, strict=False)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where} is not JSON: {error}") from error
    if not isinstance(row, dict):
        raise ValueError(f"{where}: an object expected, found {line[:60]!r}")
    if unknown := sorted(row.keys() - {"file_name", "file_names", *COLUMNS}):
        raise ValueError(
            f"{where}: unknown key {', '.join(map(repr, unknown))}; known are file_name, file_names, "
            f"{', '.join(COLUMNS)}"
        )
    if ("file_name" in row) == ("file_names" in row):
        raise ValueError(f"{where}: give either file_name, a text, or file_names, a list of texts")
    names = row.pop("file_names") if "file_names" in row else [row.pop("file_name")]
    if not isinstance(names, list):
        raise ValueError(f"{where}: file_names must be a list of texts, not {names!r:.60}")
    if not all(isinstance(name, str) for name in names):
        raise ValueError(f"{where}: file_name must be a text, and file_names a list of texts, not {names!r:.60}")
    if not isinstance(row.get("choices"), list | None):
        raise ValueError(f"{where}: choices must be a list of texts, not {row['choices']!r:.60}")
    return {**row, "file_names": names}


def _row(
    name: str,
    source: str,
    index: int,
    row: Mapping[str, Any],
    images: Callable[[Mapping[str, Any]], tuple[bytes, ...]],
    files: tuple[str, ...] | None = None,
) -> Row | Rejected:
    counted_id = f"{name}-train-{index:06d}"
    try:
        encoded = images(row)
        choices = tuple(map(as_text, row["choices"])) if row.get("choices") else None
        question = as_text(row["question"]) if row.get("question") else None
        answer, question_type, given_id = (
            None if row.get(column) is None else text_or_number(row[column], column)
            for column in ("answer", "question_type", "id")
        )
    except (RowError, RowFormatError, OSError) as error:
        return Rejected(counted_id, (Problem("row", str(error)),), files or ())
    return Row(
        id=given_id or counted_id,
        data_source=name,
        question=with_placeholders(with_choices(question or "", choices), len(encoded)),
        images=encoded,
        question_type=NO_QUESTION
        if question is None
        else question_type or ("multi_choice" if choices else "free_form"),
        answer=answer,
        choices=choices,
        provenance=Provenance(source, None, "train", index, files),
    )


DATA_SETS.register(
    CustomImages("images", "a folder or parquet file of your own images, with or without questions: SOURCE=...")
)
