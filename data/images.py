"""Images of one's own, with or without questions: a folder, or a parquet file.

A folder is searched for image files, in the order of their paths. A `metadata.jsonl` in it gives questions: one JSON
object a line with `file_name` (relative to the folder) or `file_names`, `question` and, where they are known, `answer`,
`choices`, `question_type` and `id`; an image may occur in several lines, one that occurs in none has no question, and a
line with `"file_names": []` is a question without an image.

A parquet file has a column `image` or `images` (bytes, or {"bytes"}) and, where there are some, the other ones above.

Without a question a row has the question type `no_question`: for synthesis, not for training.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from data.checks import Problem, Rejected
from data.hub import ColumnError, RowError, images_bytes, text, with_choices, with_placeholders
from data.schema import NO_QUESTION, Provenance, Row
from data.writing import BadRows, write_dataset

# Raised whenever what is made of the same source changes here.
VERSION = 1
METADATA = "metadata.jsonl"
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
COLUMNS = ("answer", "choices", "id", "question", "question_type")
# Rows of a parquet file that are read at a time.
BATCH = 16


@dataclass(frozen=True)
class OwnImages:
    """Images of one's own as a data set, see `data.catalog`; its one split is `train`."""

    name: str
    summary: str

    def prepare(
        self,
        folder: Path,
        source: str | None = None,
        revision: str | None = None,
        bad_rows: BadRows = "drop",
        workers: int | None = None,
        progress: bool = False,
    ) -> bool:
        """Write the data set; see `data.writing.write_dataset`.

        Raises:
            ValueError: no source or a revision is given, or `metadata.jsonl` has a line that is no such object.
            FileNotFoundError: the source is not there, or has no images.
            ColumnError: the parquet file has no images.
        """
        if source is None or revision is not None:
            raise ValueError(f"{self.name}: name a folder or a parquet file by SOURCE, and no REVISION")
        path = Path(source).expanduser()
        if path.is_dir():
            files = image_files(path)
            if not files and not (path / METADATA).is_file():
                raise FileNotFoundError(f"{path} has no images ({', '.join(SUFFIXES)}) and no {METADATA}")
            sizes = {str(file.relative_to(path)): file.stat().st_size for file in [*files, *path.glob(METADATA)]}
            rows: FolderRows | ParquetRows = FolderRows(self.name, path, files)
        elif path.is_file():
            sizes = {path.name: path.stat().st_size}
            rows = ParquetRows(self.name, path)
        else:
            raise FileNotFoundError(f"{self.name}: there is no {path}")
        parameters = {"data_source": self.name, "version": VERSION, "path": str(source), "files": sizes}
        origin = {"path": str(source), "revision": None}
        return write_dataset(
            folder, {"train": rows}, parameters, source=origin, bad_rows=bad_rows, workers=workers, progress=progress
        )


def image_files(folder: Path) -> list[Path]:
    """The image files in a folder and the folders in it, by their paths; hidden ones are left out."""
    files = (file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
    return sorted(file for file in files if not any(part[0] == "." for part in file.relative_to(folder).parts))


class FolderRows:
    """The rows of a folder, one for each line of its metadata and for each image that has none."""

    def __init__(self, name: str, folder: Path, files: list[Path]) -> None:
        self._name, self._folder = name, folder
        self._lines: list[dict[str, Any]] = []
        metadata = folder / METADATA
        if metadata.is_file():
            for number, line in enumerate(metadata.read_text(encoding="utf-8").splitlines(), start=1):
                if line.strip():
                    self._lines.append(_line(line, f"{metadata}, line {number}"))
        asked = {(folder / file).resolve() for line in self._lines for file in line["file_names"]}
        self._lines += [{"file_names": [str(f.relative_to(folder))]} for f in files if f.resolve() not in asked]

    def __len__(self) -> int:
        return len(self._lines)

    def __iter__(self) -> Iterator[Row | Rejected]:
        for index, line in enumerate(self._lines):
            yield _row(self._name, str(self._folder), index, line, self._images)

    def _images(self, line: Mapping[str, Any]) -> tuple[bytes, ...]:
        return tuple(self._read(name) for name in line["file_names"])

    def _read(self, name: str) -> bytes:
        file = (self._folder / name).resolve()
        if not file.is_relative_to(self._folder.resolve()):
            raise RowError(f"{name} is outside of the folder")
        if not file.is_file():
            raise RowError(f"there is no file {name}")
        return file.read_bytes()


class ParquetRows:
    """The rows of a parquet file, a few of them in memory at a time."""

    def __init__(self, name: str, file: Path) -> None:
        self._name, self._file = name, file
        names = pq.read_schema(file).names
        found = [column for column in ("images", "image") if column in names]
        if not found:
            raise ColumnError(f"{file}: a column image or images expected, found {', '.join(names)}")
        self._column = found[0]
        self._columns = [self._column, *(column for column in COLUMNS if column in names)]

    def __len__(self) -> int:
        return int(pq.read_metadata(self._file).num_rows)

    def __iter__(self) -> Iterator[Row | Rejected]:
        index = 0
        with pq.ParquetFile(self._file) as file:
            for batch in file.iter_batches(BATCH, columns=self._columns):
                for row in batch.to_pylist():
                    yield _row(self._name, str(self._file), index, row, lambda row: images_bytes(row[self._column]))
                    index += 1


def _line(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where} is no JSON: {error}") from error
    if not isinstance(row, dict):
        raise ValueError(f"{where}: an object expected, found {line[:60]!r}")
    if unknown := sorted(row.keys() - {"file_name", "file_names", *COLUMNS}):
        raise ValueError(
            f"{where}: unknown {', '.join(unknown)}; known are file_name, file_names, {', '.join(COLUMNS)}"
        )
    names = row.pop("file_names", None)
    if names is None:
        names = [row.pop("file_name", None)]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{where}: file_name must be a text, or file_names a list of texts")
    return {**row, "file_names": names}


def _row(name: str, source: str, index: int, row: Mapping[str, Any], images: Any) -> Row | Rejected:
    own_id = f"{name}-train-{index:06d}"
    try:
        encoded = images(row)
        choices = tuple(map(text, row["choices"])) if row.get("choices") else None
        question = text(row["question"]) if row.get("question") else None
        answer, question_type, given_id = (
            None if row.get(column) is None else str(row[column]) for column in ("answer", "question_type", "id")
        )
    except (RowError, OSError) as error:
        return Rejected(own_id, (Problem("row", str(error)),))
    return Row(
        id=given_id or own_id,
        data_source=name,
        question=with_placeholders(with_choices(question or "", choices), len(encoded)),
        images=encoded,
        question_type=NO_QUESTION
        if question is None
        else question_type or ("multi_choice" if choices else "free_form"),
        answer=answer,
        choices=choices,
        provenance=Provenance(source, None, "train", index),
    )


DATASETS = (OwnImages("images", "a folder or parquet file of your own images, with or without questions: SOURCE=..."),)
