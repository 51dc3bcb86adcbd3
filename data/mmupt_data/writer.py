"""Writes data sets: checks rows, writes them atomically, and describes them in a manifest.

`manifest.json` beside the files of `mmupt_data.row_schema` holds:
    schema       SCHEMA_VERSION of `mmupt_data.row_schema`
    parameters   everything that determines the rows; a change causes the files to be written again
    source       {"path", "revision", ...} of the source of the rows; null for generated data
    rows         rows per split
    official     rows per split at the publisher; null if unknown
    licences     rows per licence; "" for an unknown licence
    no_question  number of rows without a question, which are not trained on
    dropped      {"split", "row", "id", "files", "problems": [{"kind", "detail"}]} per dropped row; files are its image
                 files in a folder
    kept         the same per kept row with problems: rows of evaluation splits, which keep every row, and rows with
                 only `mmupt_data.row_problems.HARMLESS` problems
    changed      {split: {change: {"images", "first"}}}: images that decoding changes, by `verl_ext.images.Change`, and
                 the first row with such an image
    sha256       per file
"""

import json
import os
from collections import Counter, deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from mmupt_data.parquet_writer import row_writer
from mmupt_data.row_problems import HARMLESS, Duplicates, Problem, Rejected, files_of, inspect, place
from mmupt_data.row_schema import NO_QUESTION, PROMPT_SCHEMA, SCHEMA_VERSION, TRUTH_SCHEMA, Row, prompts_path
from verl_ext.datasets.ground_truth import sidecar_of
from verl_ext.files import replacing, sha256, write_json
from verl_ext.images import Change
from verl_ext.locks import exclusive_lock

BadRows = Literal["drop", "stop"]
# The problems of a row, and the number of its images per change by decoding.
Inspected = tuple[list[Problem], Counter[Change]]
MANIFEST = "manifest.json"
# Rows per thread that are checked ahead of writing.
CHECKED_AHEAD = 8


class BadRowError(ValueError):
    """A row cannot be used, and `bad_rows` is "stop". The message names the file, row and id, and every problem."""


@dataclass(frozen=True)
class WriteOptions:
    """How rows are checked.

    Attributes:
        bad_rows: drop rows with problems and list them in the manifest, or stop at the first one.
        workers: threads that check rows; None for one per core.
    """

    bad_rows: BadRows = "drop"
    workers: int | None = None
    progress: bool = False


def write_dataset(
    folder: Path,
    splits: Mapping[str, Iterable[Row | Rejected]],
    parameters: Mapping[str, Any],
    *,
    source: Mapping[str, Any] | None = None,
    truth: bool = True,
    evaluation: Collection[str] = (),
    official_rows: Mapping[str, int | None] | None = None,
    options: WriteOptions = WriteOptions("stop"),
) -> bool:
    """Check and write every split and the manifest, unless they exist already.

    Args:
        folder: the folder of the files; it is created if missing, and locked while writing.
        splits: the rows of each split by its name. Iterables are consumed lazily, and only if there is something to do.
        parameters: everything that determines the rows, as JSON values.
        truth: write truth files; without them no row may have an answer.
        evaluation: the splits for evaluation, which keep every row, whatever `bad_rows` says.
        official_rows: rows per split at the publisher, for the manifest.

    Returns:
        Whether anything was written: False if the folder has unchanged files of these parameters.

    Raises:
        BadRowError: a row has a problem under "stop", or a row of an evaluation split cannot be read at all.
        ValueError: two rows share an id, every row of a split was dropped, or a row has an answer without truth files.
    """
    parameters = dict(json.loads(json.dumps(parameters)))
    folder.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(folder, wait=True):
        if is_written(folder, splits, parameters, truth):
            return False
        report = _Report(options.bad_rows)
        rows = {}
        workers = options.workers or os.cpu_count() or 1
        # All files are renamed together at the end. A kill in between leaves complete files with other digests.
        with ExitStack() as files, ThreadPoolExecutor(workers) as threads:
            for split, given in splits.items():
                total = len(given) if isinstance(given, Sized) else None
                bar = tqdm(total=total, desc=split, unit=" rows", disable=not options.progress)
                checked = _checked(given, threads, CHECKED_AHEAD * workers)
                prompts = files.enter_context(replacing(prompts_path(folder, split)))
                truths = files.enter_context(replacing(sidecar_of(prompts_path(folder, split)))) if truth else None
                rows[split] = _write_split(split, prompts, truths, checked, report, split in evaluation, bar)
        manifest = {
            "schema": SCHEMA_VERSION,
            "parameters": parameters,
            "source": source,
            "rows": rows,
            "official": {split: (official_rows or {}).get(split) for split in rows},
            "licences": report.licences,
            "no_question": report.no_question,
            "dropped": report.dropped,
            "kept": report.kept,
            "changed": report.changed,
            "sha256": {path.name: sha256(path) for path in _paths(folder, splits, truth)},
        }
        write_json(folder / MANIFEST, manifest, sort_keys=True)
    return True


def is_written(folder: Path, splits: Iterable[str], parameters: Mapping[str, Any], truth: bool = True) -> bool:
    """Whether the folder has unchanged files made with these parameters."""
    manifest = read_manifest(folder)
    return (
        manifest is not None
        and manifest.get("schema") == SCHEMA_VERSION
        and manifest["parameters"] == parameters
        and set(manifest["sha256"]) == {path.name for path in _paths(folder, splits, truth)}
        and all(is_unchanged(folder / name, manifest) for name in manifest["sha256"])
    )


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a folder; None if there is none."""
    path = folder / MANIFEST
    return dict(json.loads(path.read_text())) if path.is_file() else None


def is_unchanged(file: Path, manifest: Mapping[str, Any]) -> bool:
    """Whether a file exists and matches the manifest beside it."""
    return file.is_file() and manifest["sha256"].get(file.name) == sha256(file)


def _paths(folder: Path, splits: Iterable[str], truth: bool) -> list[Path]:
    prompts = [prompts_path(folder, split) for split in splits]
    return [path for file in prompts for path in ((file, sidecar_of(file)) if truth else (file,))]


@dataclass
class _Report:
    """The policy on bad rows, and the manifest's entries about the rows of all splits."""

    bad_rows: BadRows
    seen: set[str] = field(default_factory=set)
    dropped: list[dict[str, Any]] = field(default_factory=list)
    kept: list[dict[str, Any]] = field(default_factory=list)
    changed: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    licences: Counter[str] = field(default_factory=Counter)
    no_question: int = 0


def _write_split(
    split: str,
    prompts: Path,
    truths: Path | None,
    checked: Iterable[tuple[Row | Rejected, Inspected]],
    report: _Report,
    evaluation: bool,
    bar: tqdm,
) -> int:
    """Write the rows of a split that can be used to these files, and return their number."""
    changed = report.changed.setdefault(split, {})
    file = prompts.with_suffix("")
    duplicates = Duplicates()
    written = read = 0
    with (
        bar,
        row_writer(prompts, PROMPT_SCHEMA) as append_prompt,
        row_writer(truths, TRUTH_SCHEMA) if truths else nullcontext() as append_truth,
    ):
        for read, (row, (problems, changes)) in enumerate(checked, start=1):
            bar.update()
            where = place(read - 1, row.id, files_of(row))
            if row.id in report.seen:
                raise ValueError(f"{file}, {where}: the id {row.id} is given twice")
            report.seen.add(row.id)
            if truths is None and isinstance(row, Row) and row.answer is not None:
                raise ValueError(f"{file}, {where}: it has an answer, and no truth file is written")
            if isinstance(row, Row) and (evaluation or not problems):
                problems = [*problems, *duplicates.check(row)]
            found = {
                "split": split,
                "row": read - 1,
                "id": row.id,
                "files": files_of(row),
                "problems": [asdict(one) for one in problems],
            }
            is_bad = any(problem.kind not in HARMLESS for problem in problems) and not evaluation
            if is_bad or isinstance(row, Rejected):
                if report.bad_rows == "stop" or evaluation:
                    raise BadRowError(
                        f"{file}, {where}: "
                        + "; ".join(f"{problem.kind} ({problem.detail})" for problem in problems)
                        + (". An evaluation leaves no row out: mend it in the source" if evaluation else "")
                    )
                report.dropped.append(found)
                continue
            if problems:
                report.kept.append(found)
            for change, images in changes.items():
                changed.setdefault(change, {"images": 0, "first": where})["images"] += images
            report.licences[row.licence or ""] += 1
            report.no_question += row.question_type == NO_QUESTION
            append_prompt(row.without_answer())
            if append_truth and row.answer is not None:
                append_truth(row.truth())
            written += 1
    if read and not written:
        reasons = "; ".join(problem_summary([row for row in report.dropped if row["split"] == split]))
        raise ValueError(f"{file}: no row of {read} can be used: {reasons}")
    return written


def problem_summary(reported: Iterable[Mapping[str, Any]]) -> list[str]:
    """The number of rows per kind of problem in `dropped` or `kept` of a manifest, each with its first example."""
    firsts: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for row in reported:
        for problem in {problem["kind"]: problem for problem in reversed(row["problems"])}.values():
            counts[problem["kind"]] += 1
            where = place(row["row"], row["id"], row.get("files", ()))
            firsts.setdefault(problem["kind"], f"{where}: {problem['detail']}")
    return [f"{count} x {kind}, the first: {firsts[kind]}" for kind, count in counts.most_common()]


def _checked(
    rows: Iterable[Row | Rejected], threads: ThreadPoolExecutor, limit: int
) -> Iterator[tuple[Row | Rejected, Inspected]]:
    """Check rows in threads, at most `limit` ahead, and yield them in order."""
    ahead: deque[tuple[Row | Rejected, Future[Inspected]]] = deque()
    for row in rows:
        ahead.append((row, threads.submit(_inspected, row)))
        if len(ahead) > limit:
            checked, future = ahead.popleft()
            yield checked, future.result()
    for checked, future in ahead:
        yield checked, future.result()


def _inspected(row: Row | Rejected) -> Inspected:
    return (list(row.problems), Counter()) if isinstance(row, Rejected) else inspect(row)
