"""Compares two evaluations on every benchmark that both answer, for `mmupt compare`. Generates nothing."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmupt.console import printable
from mmupt.evaluation.comparison_report import as_content, page, plot, render
from mmupt.evaluation.model_comparison import ModelComparison, compare
from mmupt.evaluation.response_files import response_files
from mmupt.evaluation.verdicts import AnyExtraction, JudgedFile, judge_file
from mmupt.reports.html_page import write_page
from verl_ext.answers import AnswerRule
from verl_ext.datasets.parquet_reader import whole_rows
from verl_ext.files import write_atomically, write_json


def read_evaluation(
    path: Path, extraction: AnyExtraction | None = None, rule: AnswerRule | None = None
) -> dict[str, JudgedFile]:
    """Judge the files of responses at a path with `judge_file`, by benchmark, and report bad lines on stderr.

    Raises:
        FileNotFoundError: there is no such file, or its parameters are missing.
        ValueError: two files answer the same benchmark, or a question has no ground truth.
    """
    found: dict[str, JudgedFile] = {}
    for file in response_files(path):
        judged = judge_file(file, extraction, rule)
        for warning in judged.warnings():
            print(printable(warning), file=sys.stderr)
        for benchmark in sorted({judged.questions[verdict.response.id].data_source for verdict in judged.verdicts}):
            if benchmark in found:
                raise ValueError(
                    f"{found[benchmark].file} and {file} both answer {benchmark}: name one of them instead"
                )
            found[benchmark] = judged
    return found


def compare_evaluations(a: Mapping[str, JudgedFile], b: Mapping[str, JudgedFile]) -> list[ModelComparison]:
    """Compare two evaluations on every benchmark that both answer; ValueError if there is none, or from `compare`."""
    common = sorted(a.keys() & b.keys())
    if not common:
        raise ValueError(f"A answers {', '.join(a) or 'nothing'} and B {', '.join(b) or 'nothing'}: nothing in common")
    return [compare(benchmark, a[benchmark], b[benchmark]) for benchmark in common]


def write_comparison(
    folder: Path,
    comparisons: Sequence[ModelComparison],
    extraction: AnyExtraction | None = None,
    rule: AnswerRule | None = None,
) -> str:
    """Write `compare.md`, `.json`, `.png` and `.html` into a folder and return the Markdown.

    `extraction` and `rule` are the values passed to `read_evaluation`, for the record.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = render(comparisons)
    images = {comparison.benchmark: _images(comparison) for comparison in comparisons}
    write_atomically(folder / "compare.png", plot(comparisons))
    write_page(folder / "compare.html", "What two models answer differently", *page(comparisons, images))
    write_json(folder / "compare.json", as_content(comparisons, extraction, rule))
    write_atomically(folder / "compare.md", f"{text}\n![Differences with their intervals](compare.png)\n")
    return text


def _images(comparison: ModelComparison) -> dict[str, list[bytes]]:
    ids = [example.question.id for example in (*comparison.changes.gained_examples, *comparison.changes.lost_examples)]
    return {
        row["id"]: [image["bytes"] for image in row["images"]]
        for file in comparison.a.parameters["data"]
        for row in whole_rows(file, ("id", "images"))
        if row["id"] in ids
    }
