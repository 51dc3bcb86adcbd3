"""Data sets of the Hugging Face hub: how one is declared, and how its rows are read. No data set is named here.

A data set's columns are written down as `Layout`s, one for each form in which it is published. The one whose columns
are all there is taken; where none is, the error names what was expected and what was found. Rows pass one by one, so
that a set of any size takes little memory.
"""

import glob
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import Any, Literal

import datasets
from datasets import Dataset, Features, Image, LargeList, List, Value, get_dataset_config_names, load_dataset
from datasets.exceptions import DatasetsError
from httpx import HTTPError
from huggingface_hub import HfApi

from mmupt_data.row_problems import Problem, Rejected
from mmupt_data.row_schema import PLACEHOLDER, Provenance, Row
from mmupt_data.writer import BadRows, is_written, read_manifest, sha256, write_dataset
from verl_ext.locks import exclusive_lock

# Raised whenever what is made of the same source changes here, so that files written before are written anew.
VERSION = 2
# Rows that are read at a time.
BATCH = 16
Holds = Literal["text", "image", "images", "list", "anything"]
# "<image1>" of some sets, "<image 1>" of others.
NUMBERED_PLACEHOLDER = re.compile(r"<image ?(\d+)>")
LISTS = (List, LargeList)
# What a file holds that Git LFS has not fetched.
LFS_POINTER = b"version https://git-lfs"


class ColumnError(ValueError):
    """The columns of a source are not those of any layout; the message has what was expected and what was found."""


class RowError(ValueError):
    """One row of a source cannot be read; the message says why."""


class SourceError(ValueError):
    """A source cannot be loaded, or lacks a split; the message says what was expected, what was found and the fix."""


@dataclass(frozen=True)
class Licence:
    """The licence of a data set: its `name` as the source words it, and `stated_in`, the page that states it."""

    name: str
    stated_in: str


@dataclass(frozen=True)
class Split:
    """A split of a data set.

    `name` is the source's. Of a `training` split bad rows may be dropped; every other one is evaluated on and keeps all
    of its rows. `rows` is how many the publisher's has, so that a partial copy is noticed; None where nobody here knows
    it. An `optional` split is left out where a source lacks it.
    """

    name: str
    training: bool = False
    rows: int | None = None
    optional: bool = False


@dataclass(frozen=True)
class Content:
    """What a layout finds in a row of a source: the fields of `mmupt_data.row_schema.Row` that a source knows.

    `question` may hold placeholders or none, see `with_placeholders`. `id` is None where the source has no column for
    it: rows are counted then.
    """

    question: str
    images: tuple[bytes, ...]
    answer: str | None
    id: str | None = None
    question_type: str = "free_form"
    choices: tuple[str, ...] | None = None
    metadata: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Layout:
    """One form in which a data set is published.

    `columns` says what each needed column holds; an image is encoded, `images` are one or several. `read` makes the
    content of a row, whose images are bytes; RowError where it cannot.
    """

    columns: Mapping[str, Holds]
    read: Callable[[Mapping[str, Any]], Content]


@dataclass(frozen=True)
class HubDataset:
    """A data set of the hub.

    `name` is that of its folder and the `data_source` of its rows; `path` the hub repository; `splits` are those of the
    source by our names; `configuration` the hub's name for a part of the repository. `licence` is None where no page
    that states one is known.
    """

    name: str
    summary: str
    path: str
    splits: Mapping[str, Split]
    layouts: tuple[Layout, ...]
    configuration: str | None = None
    licence: Licence | None = None

    def prepare(
        self,
        folder: Path,
        source: str | None = None,
        revision: str | None = None,
        bad_rows: BadRows = "drop",
        workers: int | None = None,
        progress: bool = False,
    ) -> bool:
        """Write the data set; see `mmupt_data.writer.write_dataset` for the files, the policy and what is returned.

        Args:
            folder: where the files go.
            source: another hub repository, a local copy of one, or, for a set with one split, a parquet file. None for
            what the files in the folder were made from, and the hub's own where there are none.
            revision: of the hub repository; None for the newest when the files are made.
            bad_rows, workers, progress: see `write_dataset`.

        Raises:
            ColumnError: the source has other columns.
            SourceError: the source lacks a split, or cannot be loaded.
            FileNotFoundError: a local source is not there.
            ConnectionError: the hub cannot be reached; the message names what to do without it.
        """
        manifest = read_manifest(folder)
        before = {} if manifest is None else manifest["parameters"]
        same = before.get("data_source") == self.name and revision in (None, before.get("revision"))
        written = self._splits_of(manifest)
        # A local copy that is still there may have been edited since.
        is_fixed = same and ("files" not in before or not Path(before["path"]).expanduser().exists())
        if source is None and is_fixed and before["version"] == VERSION and is_written(folder, written, before):
            return False
        path = source or (before["path"] if same else self.path)
        parameters = {"data_source": self.name, "version": VERSION, "path": path, "revision": revision}
        local = Path(path).expanduser()
        if local.exists():
            parameters["files"] = _digests(local)
        elif path.startswith((".", "/", "~")):
            raise FileNotFoundError(f"{self.name}: there is no {path}")
        if is_written(folder, written, parameters):
            return False
        if not local.exists():
            revision = resolve_revision(self.name, path, revision)
        origin = {"path": path, "revision": revision}
        origin["licence_stated_in"] = self.licence.stated_in if self.licence else None
        with _copies_in(folder / "copies"):
            rows = self._rows(path, revision)
            return write_dataset(
                folder,
                rows,
                parameters,
                source=origin,
                bad_rows=bad_rows,
                evaluation=[name for name in rows if not self.splits[name].training],
                official_rows={name: self.splits[name].rows for name in rows},
                workers=workers,
                progress=progress,
            )

    def _splits_of(self, manifest: Mapping[str, Any] | None) -> list[str]:
        """The splits that a folder with this manifest should have: an optional one may be missing."""
        found = {} if manifest is None else manifest["rows"]
        needed = {name for name, split in self.splits.items() if not split.optional}
        return list(found) if needed <= found.keys() <= self.splits.keys() else list(self.splits)

    def _rows(self, path: str, revision: str | None) -> dict[str, "HubRows"]:
        rows = {}
        for name, split in self.splits.items():
            try:
                rows[name] = HubRows(self, path, revision, split.name)
            except SourceError:
                if not split.optional:
                    raise
        return rows


class HubRows:
    """The rows of one split of a source, read from the disk while they are asked for."""

    def __init__(self, dataset: HubDataset, path: str, revision: str | None, split: str) -> None:
        self._set, self._path, self._revision, self._split = dataset, path, revision, split
        loaded = _load(dataset, path, revision, split)
        self._layout = _layout_of(dataset, f"{path}, split {split}", loaded.features)
        # As Arrow has them: images stay encoded.
        self._rows = loaded.select_columns(list(self._layout.columns)).with_format("arrow")

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Row | Rejected]:
        rows = (row for batch in self._rows.iter(BATCH) for row in batch.to_pylist())
        for index, row in enumerate(rows):
            yield self._read(index, row)

    def _read(self, index: int, row: Mapping[str, Any]) -> Row | Rejected:
        prefix = f"{self._set.name}-{self._split}"
        try:
            content = self._layout.read(row)
        except RowError as error:
            return Rejected(f"{prefix}-{index:06d}", (Problem("row", str(error)),))
        return Row(
            id=f"{prefix}-{f'{index:06d}' if content.id is None else content.id}",
            data_source=self._set.name,
            question=with_placeholders(content.question, len(content.images)),
            images=content.images,
            question_type=content.question_type,
            answer=content.answer,
            choices=content.choices,
            provenance=Provenance(self._path, self._revision, self._split, index),
            licence=self._set.licence.name if self._set.licence else None,
            metadata=content.metadata,
        )


def _read_problem(row: Mapping[str, Any]) -> Content:
    return Content(text(row["problem"]), images_bytes(row["images"]), text(row["answer"]))


# How most training sets are published.
PROBLEMS = Layout({"images": "images", "problem": "text", "answer": "text"}, _read_problem)


def resolve_revision(name: str, path: str, revision: str | None) -> str:
    """The commit that a revision of a hub repository names now; None for the newest.

    Raises ConnectionError where the hub does not answer, saying how to do without it.
    """
    try:
        return str(HfApi().dataset_info(path, revision=revision).sha)
    except (OSError, HTTPError) as error:
        raise ConnectionError(
            f"{name}: the hub does not give {path} ({type(error).__name__}: {error}). Without internet, copy the "
            f"repository here and run `make data DATASET={name} SOURCE=its/folder`"
        ) from error


def with_placeholders(question: str, images: int) -> str:
    """The question with a placeholder for each image, put in front where it has none.

    The tags "<image1>", "<image2>" ... are placeholders where each image has one and they are in order; otherwise they
    are text that names what is drawn.
    """
    if PLACEHOLDER in question:
        return question
    numbers = [int(number) for number in NUMBERED_PLACEHOLDER.findall(question)]
    if images and numbers == list(range(1, images + 1)):
        return NUMBERED_PLACEHOLDER.sub(PLACEHOLDER, question)
    return PLACEHOLDER * images + question


def with_choices(question: str, choices: Sequence[str] | None) -> str:
    """The question followed by its options on lines of their own, as MathVista words them."""
    if not choices:
        return question
    options = "\n".join(f"({letter}) {choice}" for letter, choice in zip(ascii_uppercase, choices, strict=False))
    return f"{question}\nChoices:\n{options}"


def image_bytes(value: Any) -> bytes:
    """The encoded image in a column's value, empty where it has none. A path in it is never opened."""
    found = value.get("bytes") if isinstance(value, Mapping) else value
    return found if isinstance(found, bytes) else b""


def images_bytes(value: Any) -> tuple[bytes, ...]:
    """The encoded images in a column's value, which holds one, several or none."""
    if value is None:
        return ()
    return tuple(image_bytes(one) for one in value) if isinstance(value, list) else (image_bytes(value),)


def text(value: Any) -> str:
    """A column's value as text; RowError where it is null or of another type."""
    if not isinstance(value, str):
        raise RowError(f"text expected, found {type(value).__name__}")
    return value


def _digests(path: Path) -> dict[str, str]:
    """The SHA-256 of every file of a source, by its name: an edit need not change a size."""
    if path.is_file():
        return {path.name: sha256(path)}
    return {name: sha256(path / name) for name in _names(path)}


def _names(folder: Path) -> list[str]:
    """The files in a folder and the folders in it, in order; hidden ones are left out."""
    files = (file.relative_to(folder) for file in folder.rglob("*") if file.is_file())
    return [str(file) for file in sorted(files) if not any(part[0] == "." for part in file.parts)]


@contextmanager
def _copies_in(folder: Path) -> Iterator[None]:
    """Have the datasets library keep its copies of a source in a folder that is removed at the end.

    They are as large as the source, and would stay in ~/.cache. HF_DATASETS_CACHE names another place, where they stay.
    What is downloaded is kept elsewhere (HF_HUB_CACHE).
    """
    before, named = datasets.config.HF_DATASETS_CACHE, os.environ.get("HF_DATASETS_CACHE")
    with ExitStack() as leaving:
        leaving.callback(setattr, datasets.config, "HF_DATASETS_CACHE", before)
        if not named:
            folder.mkdir(parents=True, exist_ok=True)
            leaving.enter_context(exclusive_lock(folder, wait=True))
            leaving.callback(shutil.rmtree, folder, ignore_errors=True)
        datasets.config.HF_DATASETS_CACHE = Path(named) if named else folder
        yield


def _load(dataset: HubDataset, path: str, revision: str | None, split: str) -> Dataset:
    local = Path(path).expanduser()
    try:
        if local.exists() and (files := _files_of_split(dataset, local, split)):
            # Names of files are patterns there.
            named = {split: [glob.escape(str(file)) for file in files]}
            return load_dataset("parquet", data_files=named, split=split)
        configuration = dataset.configuration
        if local.is_dir():
            path, revision = str(local), None
            # A folder of bare files has no named parts.
            if configuration not in get_dataset_config_names(path):
                configuration = None
        return load_dataset(path, configuration, revision=revision, split=split)
    except SourceError:
        raise
    except (DatasetsError, FileNotFoundError, ValueError) as error:
        expected = f"{split}.parquet or {split}-00000-of-*.parquet"
        found = ", ".join(_names(local)[:8]) if local.is_dir() else ""
        raise SourceError(
            f"{dataset.name}: no split {split} can be loaded from {path}: {type(error).__name__}: {error}. Expected "
            f"{expected}, or a README.md that names its files{f'; found {found}' if found else ''}. Copy the whole "
            f"repository {dataset.path}"
        ) from error


def _files_of_split(dataset: HubDataset, path: Path, split: str) -> list[Path]:
    """The parquet files of a local source that belong to a split by their names, as the hub names them.

    Those are `SPLIT.parquet`, `SPLIT-00000-of-00002.parquet`, and files in a folder SPLIT. Empty where there are none,
    or in several folders, of which only a README could say which are meant.

    Raises:
        SourceError: a single file is given for several splits, or a file is missing or was not fetched by Git LFS.
    """
    if path.is_file():
        splits = dataset.splits.values()
        needed = [one.name for one in splits if not one.optional]
        named = next((one.name for one in splits if _shard(one.name).fullmatch(path.name)), needed[0])
        if needed != [named]:
            raise SourceError(
                f"{dataset.name}: {path} is one file, and the data set has the splits {', '.join(needed)}: give the "
                f"folder that holds {', '.join(f'{one}-*.parquet' for one in needed)}"
            )
        if split != named:
            raise SourceError(f"{dataset.name}: {path} has no split {split}")
        files = [path]
    else:
        names = [Path(name) for name in _names(path) if name.endswith(".parquet")]
        files = [path / name for name in names if _shard(split).fullmatch(name.name) or split in name.parent.parts]
    if len({file.parent for file in files}) > 1:
        return []
    for file in files:
        with file.open("rb") as opened:
            if opened.read(len(LFS_POINTER)) == LFS_POINTER:
                raise SourceError(f"{dataset.name}: {file} is a pointer of Git LFS: fetch the file by `git lfs pull`")
    shards = [shard for file in files if (shard := _shard(split).fullmatch(file.name)) and shard["of"]]
    there = {int(shard["number"]) for shard in shards}
    if missing := sorted(set(range(max((int(shard["of"]) for shard in shards), default=0))) - there):
        raise SourceError(
            f"{dataset.name}: {path} lacks {split}-{missing[0]:05d}-of-{shards[0]['of']}.parquet"
            f"{f' and {len(missing) - 1} more' if len(missing) > 1 else ''}: copy all files of {dataset.path}"
        )
    return files


def _shard(split: str) -> re.Pattern[str]:
    return re.compile(rf"{re.escape(split)}(?:-(?P<number>\d{{5}})-of-(?P<of>\d{{5}})(?:-\w+)?)?\.parquet")


def _layout_of(dataset: HubDataset, where: str, features: Features) -> Layout:
    for layout in dataset.layouts:
        if all(name in features and _holds(features[name], kind) for name, kind in layout.columns.items()):
            return layout
    expected = "; or ".join(
        ", ".join(f"{n} ({kind})" for n, kind in layout.columns.items()) for layout in dataset.layouts
    )
    found = ", ".join(f"{name} ({_describe(feature)})" for name, feature in features.items())
    raise ColumnError(
        f"{dataset.name}: {where} has other columns than expected. Expected: {expected}. Found: {found}. If the source "
        f"was published anew in another form, add a Layout to the module of data/ that declares {dataset.name}"
    )


def _holds(feature: Any, kind: Holds) -> bool:
    if kind == "anything":
        return True
    # A column that is null in every row has no type.
    if isinstance(feature, Value) and feature.dtype == "null":
        return kind != "text"
    if kind == "image":
        is_bytes = isinstance(feature, Value) and feature.dtype in ("binary", "large_binary")
        return is_bytes or isinstance(feature, Image) or (isinstance(feature, dict) and "bytes" in feature)
    if kind == "images":
        return _holds(feature, "image") or (isinstance(feature, LISTS) and _holds(feature.feature, "image"))
    if kind == "list":
        return isinstance(feature, LISTS)
    if kind == "text":
        return isinstance(feature, Value) and feature.dtype in ("string", "large_string")
    raise AssertionError(f"there is no kind of column {kind!r}")


def _describe(feature: Any) -> str:
    if isinstance(feature, LISTS):
        return f"list of {_describe(feature.feature)}"
    if isinstance(feature, Value):
        return str(feature.dtype)
    return "image" if isinstance(feature, Image) else type(feature).__name__
