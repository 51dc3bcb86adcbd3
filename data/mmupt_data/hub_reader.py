"""Reads data sets of the Hugging Face hub, from the hub or from a local copy, and writes them.

Rows are streamed, so a data set of any size takes little memory.
"""

import glob
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import datasets
from datasets import Dataset, Features, Image, LargeList, List, Value, get_dataset_config_names, load_dataset
from datasets.exceptions import DatasetsError
from httpx import HTTPError
from huggingface_hub import HfApi

from mmupt_data.hub import ColumnError, Holds, HubDataset, Layout, RowError, SourceError, with_placeholders
from mmupt_data.row_problems import Problem, Rejected
from mmupt_data.row_schema import Provenance, Row
from mmupt_data.writer import WriteOptions, is_written, read_manifest, write_dataset
from verl_ext.files import is_lfs_pointer, sha256
from verl_ext.locks import exclusive_lock

# Increment this when the same source yields other files, so that existing files are written again.
VERSION = 2
# Rows per read.
BATCH = 16
LISTS = (List, LargeList)


def write(dataset: HubDataset, folder: Path, source: str | None, revision: str | None, options: WriteOptions) -> bool:
    """Write a data set, see `DataSet.prepare`.

    Raises:
        ColumnError: the source has other columns.
        SourceError: the source lacks a split, or cannot be loaded.
    """
    manifest = read_manifest(folder)
    before = {} if manifest is None else manifest["parameters"]
    same = before.get("data_source") == dataset.name and revision in (None, before.get("revision"))
    written = _splits_of(dataset, manifest)
    # A local copy that is still there may have been edited since.
    is_fixed = same and ("files" not in before or not Path(before["path"]).expanduser().exists())
    if source is None and is_fixed and before["version"] == VERSION and is_written(folder, written, before):
        return False
    path = source or (before["path"] if same else dataset.path)
    parameters = {"data_source": dataset.name, "version": VERSION, "path": path, "revision": revision}
    local = Path(path).expanduser()
    if local.exists():
        parameters["files"] = _digests(local)
    elif path.startswith((".", "/", "~")):
        raise FileNotFoundError(f"{dataset.name}: there is no {path}")
    if is_written(folder, written, parameters):
        return False
    if not local.exists():
        revision = resolve_revision(dataset.name, path, revision)
    origin = {"path": path, "revision": revision}
    origin["licence_stated_in"] = dataset.licence.stated_in if dataset.licence else None
    with _copies_in(folder / "copies"):
        rows = _rows_of(dataset, path, revision)
        return write_dataset(
            folder,
            rows,
            parameters,
            source=origin,
            evaluation=[name for name in rows if not dataset.splits[name].training],
            official_rows={name: dataset.splits[name].rows for name in rows},
            options=options,
        )


def _splits_of(dataset: HubDataset, manifest: Mapping[str, Any] | None) -> list[str]:
    """The splits that a folder with this manifest should have; optional splits may be missing."""
    found = {} if manifest is None else manifest["rows"]
    needed = {name for name, split in dataset.splits.items() if not split.optional}
    return list(found) if needed <= found.keys() <= dataset.splits.keys() else list(dataset.splits)


def _rows_of(dataset: HubDataset, path: str, revision: str | None) -> dict[str, "HubRows"]:
    rows = {}
    for name, split in dataset.splits.items():
        try:
            rows[name] = HubRows(dataset, path, revision, split.name, name)
        except SourceError:
            if not split.optional:
                raise
    return rows


class HubRows:
    """The rows of one split of a source, read from disk during iteration; `name` is this project's name for it."""

    def __init__(self, dataset: HubDataset, path: str, revision: str | None, split: str, name: str) -> None:
        self._set, self._path, self._revision, self._split, self._name = dataset, path, revision, split, name
        loaded = _load(dataset, path, revision, split)
        self._layout = _layout_of(dataset, f"{path}, split {split}", loaded.features)
        # The Arrow format leaves images encoded.
        self._rows = loaded.select_columns(list(self._layout.columns)).with_format("arrow")

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Row | Rejected]:
        rows = (row for batch in self._rows.iter(BATCH) for row in batch.to_pylist())
        for index, row in enumerate(rows):
            yield self._read(index, row)

    def _read(self, index: int, row: Mapping[str, Any]) -> Row | Rejected:
        prefix = f"{self._set.name}-{self._name}"
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


def resolve_revision(name: str, path: str, revision: str | None) -> str:
    """The commit of a revision of a hub repository; a revision of None is the newest.

    Raises:
        ConnectionError: the hub does not answer; the message says how to do without it.
    """
    try:
        return str(HfApi().dataset_info(path, revision=revision).sha)
    except (OSError, HTTPError) as error:
        raise ConnectionError(
            f"{name}: the hub does not give {path} ({type(error).__name__}: {error}). Without internet, copy the "
            f"repository here and run `make data DATASET={name} SOURCE=its/folder`"
        ) from error


def _digests(path: Path) -> dict[str, str]:
    """The SHA-256 of every file of a source by name; sizes would miss some edits."""
    if path.is_file():
        return {path.name: sha256(path)}
    return {name: sha256(path / name) for name in _names(path)}


def _names(folder: Path) -> list[str]:
    """The paths of all files below a folder, sorted, without hidden files and folders."""
    files = (file.relative_to(folder) for file in folder.rglob("*") if file.is_file())
    return [str(file) for file in sorted(files) if not any(part[0] == "." for part in file.parts)]


@contextmanager
def _copies_in(folder: Path) -> Iterator[None]:
    """Make the datasets library copy a source into a folder that is removed at the end.

    The copies are as large as the source and would otherwise stay in ~/.cache. If HF_DATASETS_CACHE is set, they go
    there and stay. Downloads stay in HF_HUB_CACHE.
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
            # The library reads file names as patterns.
            named = {split: [glob.escape(str(file)) for file in files]}
            return load_dataset("parquet", data_files=named, split=split)
        configuration = dataset.configuration
        if local.is_dir():
            path, revision = str(local), None
            # A folder of bare files has no configurations.
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
    """The parquet files of a local source that belong to a split by the hub's naming.

    These are `SPLIT.parquet`, `SPLIT-00000-of-00002.parquet`, and files in a folder SPLIT. Empty if there are none, or
    if they are in several folders, because only a README can say which are meant.

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
        if is_lfs_pointer(file):
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
        f"was published anew in another form, add a Layout to the module that declares {dataset.name}"
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
    return isinstance(feature, Value) and feature.dtype in ("string", "large_string")


def _describe(feature: Any) -> str:
    if isinstance(feature, LISTS):
        return f"list of {_describe(feature.feature)}"
    if isinstance(feature, Value):
        return str(feature.dtype)
    return "image" if isinstance(feature, Image) else type(feature).__name__
