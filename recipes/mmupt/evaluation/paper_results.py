"""Scores of evaluations beside the paper's, as a table, as JSON and as a plot.

An evaluation is a mapping from a benchmark to what `mmupt.evaluation.benchmark_scores.scores_of` says of it.
"""

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Any, NamedTuple

from mmupt.benchmarks.paper_scores import read_paper
from mmupt.evaluation.comparison_report import code
from mmupt.reports.rendering import AFTER_COLOR, LINE_COLORS, TEXT_COLOR, aligned, as_png, tidy

Evaluations = Mapping[str, Mapping[str, Mapping[str, Any]]]

PAPER = read_paper()
COLORS = (AFTER_COLOR, *LINE_COLORS)
NOTE = (
    f"Accuracy in %. The paper's rows are those of {PAPER.source}; it states no errors, and of some rows the average "
    "alone is at hand. Of our rows ± is one standard error over questions, and the average is that of the four "
    "benchmarks, left empty where one was not run. The paper samples at temperature 0.2, up to 16,384 tokens; "
    "a MathVerse score by rule is none by its judge model."
)


class Cell(NamedTuple):
    """One benchmark of an evaluation, shares of 1; `figure` names the rule and the score ("official, mean@4").

    `version` is that of the rule, None for an average over rules.
    """

    figure: str
    value: float
    standard_error: float
    questions: int
    version: int | None = None


def cell_of(scores: Mapping[str, Any]) -> Cell:
    """What stands for a benchmark: mean@k by the rule that leads, as the paper samples, or else greedy accuracy.

    Of We-Math that is the plain accuracy over all rows, as the paper's column.
    """
    rule, accuracy = scores["rule"], scores["accuracy"]
    sampled = [name for name in accuracy if name.startswith(f"{rule}, mean@")]
    name = sampled[0] if sampled else f"{rule}, greedy"
    one = accuracy[name]
    return Cell(name, one["value"], one["standard_error"], one["questions"], scores["versions"][rule])


def average_of(cells: Mapping[str, Cell]) -> Cell | None:
    """The average of the four benchmarks, each an independent sample of questions; None where one is missing."""
    four = [cells[name] for name in PAPER.titles if name in cells]
    if len(four) < len(PAPER.titles):
        return None
    return Cell(
        "average of the four",
        sum(one.value for one in four) / len(four),
        sqrt(sum(one.standard_error**2 for one in four)) / len(four),
        sum(one.questions for one in four),
    )


def results_table(evaluations: Evaluations) -> str:
    """The evaluations above the paper's rows as Markdown, the paper's four benchmarks first, then any others."""
    cells = _cells(evaluations)
    others = _others(cells)
    rows: list[tuple[str, ...]] = [
        ("", "trained on", *PAPER.titles.values(), "average", *(code(benchmark) for benchmark in others))
    ]
    for name, of_evaluation in cells.items():
        average = average_of(of_evaluation)
        rows.append(
            (
                code(name),
                "",
                *(_cell(of_evaluation.get(benchmark), benchmark) for benchmark in PAPER.titles),
                f"{100 * average.value:.2f} ± {100 * average.standard_error:.2f}" if average else "",
                *(_cell(of_evaluation.get(benchmark), benchmark) for benchmark in others),
            )
        )
    for row in PAPER.rows:
        scores = [f"{score:.2f}" for score in row.scores] if row.scores else [""] * len(PAPER.titles)
        empty = [""] * len(others)
        rows.append((f"paper: {row.method}", row.trained_on, *scores, f"{row.average:.2f}", *empty))
    versions = sorted(
        {
            f"{code(benchmark)[1:-1]} {code(cell.figure.rpartition(', ')[0])[1:-1]} {cell.version}"
            for of_evaluation in cells.values()
            for benchmark, cell in of_evaluation.items()
        }
    )
    return f"{aligned(rows)}\n\n{NOTE} Versions of the rules: {', '.join(versions)}."


def results_content(evaluations: Evaluations) -> dict[str, Any]:
    """The evaluations and the paper's rows as JSON holds them; the paper's are percent, ours shares of 1."""
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
    from matplotlib.figure import Figure

    cells = _cells(evaluations)
    others = _others(cells)
    # The average has a place of its own behind the four.
    places = {name: place for place, name in enumerate((*PAPER.titles, "average", *others))}
    figure = Figure(figsize=(3 + 1.3 * len(places), 4.8), dpi=160, layout="constrained")
    axes = figure.subplots()
    for row, marker in ((PAPER.base, "o"), (PAPER.headline, "s")):
        assert row.scores is not None
        axes.plot(
            range(len(row.scores) + 1),
            [*row.scores, row.average],
            color=TEXT_COLOR,
            marker=marker,
            markersize=7,
            markerfacecolor="white",
            linestyle="none",
            label=f"paper: {row.name}",
        )
    # Side by side to the right of the paper's markers.
    width = min(0.15, 0.6 / max(len(cells), 1))
    for number, (name, of_evaluation) in enumerate(cells.items()):
        average = average_of(of_evaluation)
        drawn = {**of_evaluation, **({"average": average} if average else {})}
        axes.errorbar(
            [places[benchmark] + 0.15 + width * number for benchmark in drawn],
            [100 * one.value for one in drawn.values()],
            yerr=[100 * one.standard_error for one in drawn.values()],
            color=COLORS[number % len(COLORS)],
            marker="D",
            markersize=6,
            capsize=4,
            linestyle="none",
            label=name.replace("$", r"\$"),
        )
    axes.set_xticks(list(places.values()), [*PAPER.titles.values(), "average", *others], parse_math=False)
    axes.set_xlim(-0.4, len(places) - 0.1)
    axes.set_ylabel("accuracy, %", color=TEXT_COLOR)
    axes.set_title("Beside the paper", loc="left", fontsize=11, fontweight="bold", color=TEXT_COLOR)
    tidy(axes)
    return as_png(figure)


def _cells(evaluations: Evaluations) -> dict[str, dict[str, Cell]]:
    return {
        name: {benchmark: cell_of(scores) for benchmark, scores in benchmarks.items()}
        for name, benchmarks in evaluations.items()
    }


def _others(cells: Mapping[str, Mapping[str, Cell]]) -> Sequence[str]:
    return sorted({benchmark for of_evaluation in cells.values() for benchmark in of_evaluation} - PAPER.titles.keys())


def _cell(cell: Cell | None, benchmark: str) -> str:
    if cell is None:
        return ""
    asked = PAPER.questions.get(benchmark, cell.questions)
    part = "" if cell.questions == asked else f", {cell.questions:,} of {asked:,} questions"
    return f"{100 * cell.value:.2f} ± {100 * cell.standard_error:.2f} ({code(cell.figure)[1:-1]}{part})"
