"""Formats scores beside the paper's as a table, as JSON and as a plot.

An evaluation is a mapping of benchmarks to `BenchmarkScores`.
"""

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Any, NamedTuple

from mmupt.benchmarks.paper_scores import read_paper
from mmupt.evaluation.benchmark_scores import BenchmarkScores
from mmupt.reports.plots import AFTER_COLOR, LINE_COLORS, Panel, Points, draw
from mmupt.reports.tables import escaped, markdown_table, plus_minus

Evaluations = Mapping[str, Mapping[str, BenchmarkScores[Any]]]

PAPER = read_paper()
COLORS = (AFTER_COLOR, *LINE_COLORS)
NOTE = (
    f"Accuracy in %. The paper's rows are those of {PAPER.source}; it states no errors, and for some rows it gives the "
    "average alone. In our rows ± is one standard error over questions, and the average is that of the four "
    "benchmarks, left empty where one was not run. The paper samples at temperature 0.2, up to 16,384 tokens, and "
    "scores MathVerse by a judge model, not by rule."
)


class Cell(NamedTuple):
    """The score of one benchmark as a share of 1; `figure` names the rule and the measure ("official, mean@4").

    `version` is that of the rule; an average has none.
    """

    figure: str
    value: float
    standard_error: float
    questions: int
    version: int | None = None


def cell_of(scores: BenchmarkScores[Any]) -> Cell:
    """Select the score to show: mean@k by the leading rule, because the paper samples, or else greedy accuracy.

    For We-Math this is the plain accuracy over all rows, as in the paper's column.
    """
    measures = scores.accuracy[scores.rule]
    measure = next((name for name in measures if name.startswith("mean@")), "greedy")
    score = measures[measure]
    name, version = f"{scores.rule}, {measure}", scores.versions[scores.rule]
    return Cell(name, score.value, score.standard_error, score.questions, version)


def average_of(cells: Mapping[str, Cell]) -> Cell | None:
    """Average the four benchmarks, each an independent sample of questions; None if one is missing."""
    four = [cells[name] for name in PAPER.titles if name in cells]
    if len(four) < len(PAPER.titles):
        return None
    return Cell(
        "average of the four",
        sum(cell.value for cell in four) / len(four),
        sqrt(sum(cell.standard_error**2 for cell in four)) / len(four),
        sum(cell.questions for cell in four),
    )


def results_table(evaluations: Evaluations) -> str:
    """Format the evaluations above the paper's rows as Markdown, with columns for the paper's benchmarks first."""
    cells = _cells(evaluations)
    others = _others(cells)
    rows: list[Sequence[str]] = [("", "trained on", *PAPER.titles.values(), "average", *others)]
    for name, by_benchmark in cells.items():
        average = average_of(by_benchmark)
        ours = [_cell(by_benchmark.get(benchmark), benchmark) for benchmark in (*PAPER.titles, *others)]
        ours.insert(len(PAPER.titles), plus_minus(average) if average else "")
        rows.append((name, "", *ours))
    for row in PAPER.rows:
        scores = [f"{score:.2f}" for score in row.scores] if row.scores else [""] * len(PAPER.titles)
        empty = [""] * len(others)
        rows.append((f"paper: {row.method}", row.trained_on, *scores, f"{row.average:.2f}", *empty))
    versions = {
        escaped(f"{benchmark} {cell.figure.rpartition(', ')[0]} {cell.version}")
        for by_benchmark in cells.values()
        for benchmark, cell in by_benchmark.items()
    }
    return f"{markdown_table(rows)}\n\n{NOTE} Versions of the rules: {', '.join(sorted(versions))}."


def results_content(evaluations: Evaluations) -> dict[str, Any]:
    """Convert the evaluations (shares of 1) and the paper's rows (percent) to JSON values."""
    evaluated: dict[str, Any] = {}
    for name, cells in _cells(evaluations).items():
        average = average_of(cells)
        evaluated[name] = {
            "benchmarks": {benchmark: cell._asdict() for benchmark, cell in cells.items()},
            "average": average._asdict() if average else None,
        }
    rows = [
        {
            "method": row.method,
            "trained_on": row.trained_on,
            "scores": dict(zip(PAPER.titles, row.scores, strict=True)) if row.scores else None,
            "average": row.average,
        }
        for row in PAPER.rows
    ]
    return {"evaluations": evaluated, "paper": {"source": PAPER.source, "rows": rows}}


def results_plot(evaluations: Evaluations) -> bytes:
    """Draw the evaluations with their standard errors beside the paper's untrained model and its MM-UPT as a PNG."""
    cells = _cells(evaluations)
    others = _others(cells)
    # The average comes after the four benchmarks.
    places = {name: place for place, name in enumerate((*PAPER.titles, "average", *others))}
    points = [
        Points(
            range(len(row.scores) + 1),
            [*row.scores, row.average],
            f"paper: {row.name}",
            marker=marker,
            size=7,
            hollow=True,
        )
        for row, marker in ((PAPER.base, "o"), (PAPER.headline, "s"))
        if row.scores
    ]
    # The evaluations are side by side, to the right of the paper's markers.
    width = min(0.15, 0.6 / max(len(cells), 1))
    for number, (name, by_benchmark) in enumerate(cells.items()):
        average = average_of(by_benchmark)
        drawn = {**by_benchmark, **({"average": average} if average else {})}
        points.append(
            Points(
                [places[benchmark] + 0.15 + width * number for benchmark in drawn],
                [100 * cell.value for cell in drawn.values()],
                name,
                color=COLORS[number % len(COLORS)],
                marker="D",
                size=6,
                y_errors=[100 * cell.standard_error for cell in drawn.values()],
            )
        )
    panel = Panel(
        "Beside the paper",
        points,
        y_label="accuracy, %",
        x_names=[*PAPER.titles.values(), "average", *others],
        x_limits=(-0.4, len(places) - 0.1),
    )
    return draw([panel], columns=1, size=(3 + 1.3 * len(places), 4.8))


def _cells(evaluations: Evaluations) -> dict[str, dict[str, Cell]]:
    return {
        name: {benchmark: cell_of(scores) for benchmark, scores in benchmarks.items()}
        for name, benchmarks in evaluations.items()
    }


def _others(cells: Mapping[str, Mapping[str, Cell]]) -> Sequence[str]:
    return sorted({benchmark for by_benchmark in cells.values() for benchmark in by_benchmark} - PAPER.titles.keys())


def _cell(cell: Cell | None, benchmark: str) -> str:
    if cell is None:
        return ""
    wanted = PAPER.questions.get(benchmark, cell.questions)
    part = "" if cell.questions == wanted else f", {cell.questions:,} of {wanted:,} questions"
    return f"{plus_minus(cell)} ({cell.figure}{part})"
