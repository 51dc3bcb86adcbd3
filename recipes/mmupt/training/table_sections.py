"""Renders the sections of `mmupt table` as Markdown (scores, tests, costs, votes, breakdowns), and its plot.

`table_runs.py` reads the runs, and `recipe_table.py` writes the files.
"""

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

from mmupt.benchmarks.paper_scores import read_paper
from mmupt.evaluation.benchmark_scores import GREEDY
from mmupt.reports.plots import PERCENT, Panel, Points, draw, palette
from mmupt.reports.tables import markdown_table, plus_minus
from mmupt.training.run_report import PERCENTAGE, UNITS, Change, ScoreUnit, beyond_majority
from mmupt.training.table_runs import VOTES, Runs
from verl_ext.scores import Score, average
from verl_ext.scores.seed_variance import SeedEstimate, difference_between_runs, mean_over_runs

# The scores of a recipe's runs: seed -> name -> change.
Changes = dict[int, dict[str, Change]]


def averages(runs: Changes) -> dict[str, Change]:
    """Average the scores of a recipe over its runs, question by question."""
    return {
        name: Change(
            average([changes[name].before for changes in runs.values()]),
            average([changes[name].after for changes in runs.values()]),
        )
        for name in next(iter(runs.values()))
    }


def render(results: Mapping[str, Changes]) -> str:
    """Return the scores as a Markdown table with one row per recipe, averaged over its seeds."""
    mean = {recipe: averages(runs) for recipe, runs in results.items()}
    others = list(dict.fromkeys(name for changes in mean.values() for name in changes if name != GREEDY))
    columns = [f"{name}, {UNITS.get(name, PERCENTAGE).name}" for name in others]
    rows = [("recipe", "seeds", f"{GREEDY}, %", "gain, points", "gain of each seed", *columns)]
    for recipe, runs in results.items():
        per_seed = ", ".join(f"{100 * changes[GREEDY].difference.value:+.1f}" for changes in runs.values())
        rows.append(
            (
                recipe,
                ", ".join(map(str, runs)),
                _before_and_after(mean[recipe][GREEDY], PERCENTAGE),
                plus_minus(gain(runs, GREEDY), 1, signed=True),
                per_seed,
                *(
                    _before_and_after(mean[recipe][name], UNITS.get(name, PERCENTAGE)) if name in mean[recipe] else ""
                    for name in others
                ),
            )
        )
    return markdown_table(rows)


def gain(runs: Changes, name: str) -> SeedEstimate:
    """The gain of a recipe over the base, which is the same model for all seeds."""
    return mean_over_runs([changes[name].difference for changes in runs.values()])


def _before_and_after(change: Change, unit: ScoreUnit) -> str:
    before, after = (f"{unit.factor * score.value:.{unit.decimals}f}" for score in (change.before, change.after))
    return f"{before} → {after}"


def render_tests(results: Mapping[str, Changes], against: str, majority: tuple[str, Score] | None) -> str:
    """Return a Markdown table of tests: greedy accuracy and mean@k of each recipe against the base and `against`.

    The last test compares greedy accuracy with the majority of the base's samples: with `majority`, a name and its
    accuracy, or by default with the majority in each run's own evaluation.
    """
    first_runs = {recipe: next(iter(runs.values())) for recipe, runs in results.items()}
    measures = [name for name in next(iter(first_runs.values())) if name == GREEDY or name.startswith("mean@")]
    references = ("the base", against)
    head = [
        cell for name in measures for reference in references for cell in (f"{name} against {reference}, points", "p")
    ]
    if beyond := beyond_majority(next(iter(first_runs.values())), majority):
        head += [f"{GREEDY} against {beyond[0]} of the base, points", "p"]
    rows: list[tuple[str, ...]] = [("recipe", *head)]
    for recipe, runs in results.items():
        cells: list[str] = []
        for name in measures:
            differences = [gain(runs, name)] if name in first_runs[recipe] else []
            if differences and recipe == against:
                # A recipe does not differ from itself, whatever the spread over its seeds.
                differences.append(SeedEstimate(0.0, 0.0, 1))
            elif differences and name in first_runs.get(against, {}):
                differences.append(difference_between_runs(_after(runs, name), _after(results[against], name)))
            measure_cells = [cell for difference in differences for cell in _difference_cells(difference)]
            cells += measure_cells + [""] * (2 * len(references) - len(measure_cells))
        if beyond:
            named = [result for changes in runs.values() if (result := beyond_majority(changes, majority))]
            cells += _difference_cells(mean_over_runs([difference for _, difference in named])) if named else ["", ""]
        rows.append((recipe, *cells))
    return markdown_table(rows)


def _after(runs: Changes, name: str) -> list[Score]:
    return [changes[name].after for changes in runs.values()]


def _difference_cells(estimate: SeedEstimate) -> tuple[str, str]:
    return plus_minus(estimate, 1, signed=True), _p(estimate)


def _p(difference: SeedEstimate) -> str:
    value = difference.p_value
    # 0 is an underflow, unless nothing varies.
    return "<1e-300" if not value and difference.standard_error else f"{value:.2g}"


def render_costs(recipes: Runs) -> str:
    """Return a Markdown table of the cost per run, averaged over seeds, and the paper's scores of the same method."""
    paper = read_paper()
    methods = {recipe: next(iter(runs.values())).method for recipe, runs in recipes.items()}
    data_sets = list(
        dict.fromkeys(row.trained_on for row in paper.rows if row.trained_on and row.method in methods.values())
    )
    head = ("recipe", "labels", "generated tokens", "hours", *(f"paper, average, {name}" for name in data_sets))
    rows: list[tuple[str, ...]] = [head]
    for recipe, runs in recipes.items():
        costs = [run.cost for run in runs.values()]
        averages_in_paper = {row.trained_on: row.average for row in paper.rows if row.method == methods[recipe]}
        rows.append(
            (
                recipe,
                f"{fmean(cost.labels for cost in costs):,.0f}",
                f"{fmean(cost.tokens for cost in costs):,.0f}",
                f"{fmean(cost.hours for cost in costs):.2f} {costs[0].device}-hours",
                *(f"{averages_in_paper[name]:.2f}" if name in averages_in_paper else "" for name in data_sets),
            )
        )
    base = paper.base
    base_line = f"\n\nThe paper's base, {base.method}: {base.average:.2f} ({paper.source})." if data_sets else ""
    return markdown_table(rows) + base_line


def render_votes(recipes: Runs) -> str:
    """Return a Markdown table of the votes in the first and last quarter of the steps, averaged over seeds.

    Returns "" if no recipe has votes.
    """
    rows = [
        (recipe, *(_first_and_last([run.votes[name] for run in runs.values() if name in run.votes]) for name in VOTES))
        for recipe, runs in recipes.items()
        if any(run.votes for run in runs.values())
    ]
    if not rows:
        return ""
    table = markdown_table([("recipe", *(f"{name}, %" for name in VOTES)), *rows])
    return (
        "Votes on training questions in the first → last quarter of the steps, whether or not the reward uses "
        f"them:\n\n{table}"
    )


def _first_and_last(runs: Sequence[tuple[float, float]]) -> str:
    first, last = ([100 * run[moment] for run in runs] for moment in (0, 1))
    return f"{fmean(first):.1f} → {fmean(last):.1f}" if runs else ""


def render_breakdowns(recipes: Runs) -> str:
    """Return a Markdown table per benchmark and breakdown: greedy accuracy of the base and the recipes' means."""
    base = next(run.base.breakdowns for runs in recipes.values() for run in runs.values())
    tables = []
    for (benchmark, name), base_labels in base.items():
        rows = [("recipe", *(f"{label} ({questions})" for label, questions in base_labels))]
        rows.append(("the base", *(f"{100 * value:.1f}" for value in base_labels.values())))
        for recipe, runs in recipes.items():
            breakdowns = [run.trained.breakdowns for run in runs.values()]
            labels_of_runs = [each[benchmark, name] for each in breakdowns if (benchmark, name) in each]
            if labels_of_runs:
                values = (fmean(labels[label] for labels in labels_of_runs) for label in base_labels)
                rows.append((recipe, *(f"{100 * value:.1f}" for value in values)))
        tables.append(
            f"Greedy accuracy by {name} of {benchmark} (number of questions), %, averaged over seeds:\n\n"
            f"{markdown_table(rows)}"
        )
    return "\n\n".join(tables)


def plot(results: Mapping[str, Changes], curves: Mapping[str, dict[int, float]]) -> bytes:
    """Return a PNG: changes of greedy accuracy and pass@k of every run with their means, and validation accuracy.

    Args:
        curves: recipe -> step -> validation accuracy, averaged over seeds; empty without training.
    """
    first = next(iter(results))
    # Methods of one recipe are labelled by method only.
    names = [recipe.removeprefix(f"{first}-") for recipe in results]
    colors = palette(len(results))
    measures = [name for name in next(iter(results[first].values())) if name == GREEDY or name.startswith("pass@")]
    panels = [
        Panel(
            f"Change of {name}, points",
            [*_gains(name, results, colors)],
            y_names=names if name == measures[0] else [""] * len(names),
            zero_line=True,
        )
        for name in measures
    ]
    accuracies = []
    for color, name, recipe in zip(colors, names, results, strict=True):
        if steps := dict(sorted(curves.get(recipe, {}).items())):
            values = [100 * value for value in steps.values()]
            accuracies.append(Points(list(steps), values, name, color=color, joined=True))
    panels.append(Panel("Validation accuracy over steps, %", accuracies, y_limits=PERCENT, whole_x=True))
    return draw(panels, columns=len(panels), size=(5 * len(panels), 1.6 + 0.45 * max(len(results), 5)))


def _gains(name: str, results: Mapping[str, Changes], colors: Sequence[Any]) -> Iterator[Points]:
    for row, (color, runs) in enumerate(zip(colors, results.values(), strict=True)):
        gains = [changes[name].difference.value for changes in runs.values() if name in changes]
        if gains:
            yield Points([100 * value for value in gains], [row] * len(gains), color=color)
            mean = gain(runs, name)
            error = [100 * mean.standard_error]
            yield Points([100 * mean.value], [row], color=color, marker="D", size=6, x_errors=error)
