"""The one way to write a data set: rows are checked, written atomically, and described by a manifest.

`manifest.json` beside the files of `mmupt_data.row_schema` holds:
    schema       SCHEMA_VERSION of `mmupt_data.row_schema`
    parameters   what determines the rows; another value writes the files anew
    source       {"path", "revision", ...} of what the rows were read from; null for what is made here
    rows         how many rows each split holds
    official     how many rows of each split its publisher has; null where that is not known
    licences     how many rows have which licence; those without a known one are counted under ""
    dropped      {"split", "row", "id", "files", "problems": [{"kind", "detail"}]} of every row that was left out; files
                 are its image files in a folder
    kept         the same of every row with problems that was kept: of a split that is evaluated on, which loses no row,
                 or with `mmupt_data.row_problems.HARMLESS` problems
    changed      {split: {change: {"images", "first"}}}: how many images decoding changes, by `verl_ext.images.Change`,
                 and the first row with such an image
    sha256       of every file
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
from mmupt_data.row_schema import PROMPT_SCHEMA, SCHEMA_VERSION, TRUTH_SCHEMA, Row, prompts_path
from verl_ext.datasets.ground_truth import sidecar_of
from verl_ext.files import replacing, sha256, write_json
from verl_ext.images import Change
from verl_ext.locks import exclusive_lock

BadRows = Literal["drop", "stop"]
MANIFEST = "manifest.json"
# Rows that are checked ahead of the one that is written, a thread.
CHECKED_AHEAD = 8


class BadRowError(ValueError):
    """A row cannot be used, and the policy is to stop. The message names split, row, id and every problem."""


def write_dataset(
    folder: Path,
    splits: Mapping[str, Iterable[Row | Rejected]],
    parameters: Mapping[str, Any],
    *,
    source: Mapping[str, Any] | None = None,
    truth: bool = True,
    bad_rows: BadRows = "stop",
    evaluation: Collection[str] = (),
    official_rows: Mapping[str, int | None] | None = None,
    workers: int | None = None,
    progress: bool = False,
) -> bool:
    """Check and write every split and the manifest, or do nothing where they are already there.

    Args:
        folder: where the files go; created if need be. It is locked meanwhile.
        splits: the rows of each split by its name. Lazy iterables are not consumed when there is nothing to do, and are
        never in memory as a whole.
        parameters: what determines the rows, as JSON can hold it.
        source: what the manifest says about where the rows come from.
        truth: whether there are truth files; without them no row may have an answer.
        bad_rows: whether a row with a problem is dropped, and listed in the manifest, or ends it all.
        evaluation: splits that are evaluated on. They keep every row, whatever `bad_rows` says.
        official_rows: how many rows of a split its publisher has, for the manifest.
        workers: threads that check rows; None for one a core.
        progress: whether to show a bar.

    Returns:
        Whether anything was written: False when the folder has the files of these parameters, unchanged.

    Raises:
        BadRowError: a row has a problem, under the policy "stop", or a row of a split that is evaluated on cannot be
            read at all.
        ValueError: two rows share an id, no row of a split is left that had some, or a row has an answer and there are
            no truth files.
    """
    parameters = dict(json.loads(json.dumps(parameters)))
    folder.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(folder, wait=True):
        if is_written(folder, splits, parameters, truth):
            return False
        report = _Report(bad_rows)
        rows = {}
        workers = workers or os.cpu_count() or 1
        # All files take their names together, at the end. A kill in between leaves whole files whose sums do not match.
        with ExitStack() as files, ThreadPoolExecutor(workers) as threads:
            for split, given in splits.items():
                total = len(given) if isinstance(given, Sized) else None
                bar = tqdm(total=total, desc=split, unit=" rows", disable=not progress)
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
            "dropped": report.dropped,
            "kept": report.kept,
            "changed": report.changed,
            "sha256": {path.name: sha256(path) for path in _paths(folder, splits, truth)},
        }
        write_json(folder / MANIFEST, manifest, sort_keys=True)
    return True


def is_written(folder: Path, splits: Iterable[str], parameters: Mapping[str, Any], truth: bool = True) -> bool:
    """Whether the folder holds exactly what its manifest says, made with these parameters."""
    manifest = read_manifest(folder)
    return (
        manifest is not None
        and manifest.get("schema") == SCHEMA_VERSION
        and manifest["parameters"] == parameters
        and set(manifest["sha256"]) == {path.name for path in _paths(folder, splits, truth)}
        and all(is_unchanged(folder / name, manifest) for name in manifest["sha256"])
    )


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a folder; None where there is none."""
    path = folder / MANIFEST
    return dict(json.loads(path.read_text())) if path.is_file() else None


def is_unchanged(file: Path, manifest: Mapping[str, Any]) -> bool:
    """Whether a file is there and is the one that the manifest beside it describes."""
    return file.is_file() and manifest["sha256"].get(file.name) == sha256(file)


def _paths(folder: Path, splits: Iterable[str], truth: bool) -> list[Path]:
    prompts = [prompts_path(folder, split) for split in splits]
    return [path for file in prompts for path in ((file, sidecar_of(file)) if truth else (file,))]


@dataclass
class _Report:
    """The policy for all splits, and what is to be said about their rows."""

    bad_rows: BadRows
    seen: set[str] = field(default_factory=set)
    dropped: list[dict[str, Any]] = field(default_factory=list)
    kept: list[dict[str, Any]] = field(default_factory=list)
    changed: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    licences: Counter[str] = field(default_factory=Counter)


def _write_split(
    split: str,
    prompts: Path,
    truths: Path | None,
    checked: Iterable[tuple[Row | Rejected, tuple[list[Problem], Counter[Change]]]],
    report: _Report,
    evaluation: bool,
    bar: tqdm,
) -> int:
    """Write the rows of a split that are kept to these files, and return their number."""
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
            append_prompt(row.without_answer())
            if append_truth and row.answer is not None:
                append_truth(row.truth())
            written += 1
    if read and not written:
        reasons = "; ".join(summary([row for row in report.dropped if row["split"] == split]))
        raise ValueError(f"{file}: no row of {read} can be used: {reasons}")
    return written


def summary(reported: Iterable[Mapping[str, Any]]) -> list[str]:
    """How many rows of `dropped` or `kept` in a manifest have each kind of problem, each with its first example."""
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
) -> Iterator[tuple[Row | Rejected, tuple[list[Problem], Counter[Change]]]]:
    """Check rows in threads, in which Pillow decodes side by side, at most `limit` ahead; the order stays."""
    ahead: deque[tuple[Row | Rejected, Future[tuple[list[Problem], Counter[Change]]]]] = deque()
    for row in rows:
        ahead.append((row, threads.submit(_inspected, row)))
        if len(ahead) > limit:
            checked, future = ahead.popleft()
            yield checked, future.result()
    for checked, future in ahead:
        yield checked, future.result()


def _inspected(row: Row | Rejected) -> tuple[list[Problem], Counter[Change]]:
    return (list(row.problems), Counter()) if isinstance(row, Rejected) else inspect(row)
