"""The sections of the table of `mmupt table`, as Markdown, and its picture: scores, tests, costs, votes, breakdowns.

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

# The scores of the runs of one recipe by their seed.
Changes = dict[int, dict[str, Change]]


def averages(runs: Changes) -> dict[str, Change]:
    """Average the scores of the runs of one recipe by name, question by question."""
    return {
        name: Change(
            average([changes[name].before for changes in runs.values()]),
            average([changes[name].after for changes in runs.values()]),
        )
        for name in next(iter(runs.values()))
    }


def render(results: Mapping[str, Changes]) -> str:
    """The comparison as a Markdown table: one row per recipe, averaged over its seeds."""
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
    """The gain of a recipe over the base, which is one model whatever the seeds."""
    return mean_over_runs([changes[name].difference for changes in runs.values()])


def _before_and_after(change: Change, unit: ScoreUnit) -> str:
    before, after = (f"{unit.factor * one.value:.{unit.decimals}f}" for one in (change.before, change.after))
    return f"{before} → {after}"


def render_tests(results: Mapping[str, Changes], against: str, majority: tuple[str, Score] | None) -> str:
    """Greedy accuracy and mean@k of each recipe against the base, and against another recipe, as a Markdown table.

    The last test is of greedy accuracy against the majority of the base's samples: `majority`, a name and an accuracy,
    or that of each run's own evaluation.
    """
    measured = {recipe: next(iter(runs.values())) for recipe, runs in results.items()}
    measures = [name for name in next(iter(measured.values())) if name == GREEDY or name.startswith("mean@")]
    others = ("the base", against)
    head = [cell for name in measures for other in others for cell in (f"{name} against {other}, points", "p")]
    if beyond := beyond_majority(next(iter(measured.values())), majority):
        head += [f"{GREEDY} against {beyond[0]} of the base, points", "p"]
    rows: list[tuple[str, ...]] = [("recipe", *head)]
    for recipe, runs in results.items():
        cells: list[str] = []
        for name in measures:
            found = [gain(runs, name)] if name in measured[recipe] else []
            if found and recipe == against:
                # A recipe does not differ from itself, whatever its seeds.
                found.append(SeedEstimate(0.0, 0.0, 1))
            elif found and name in measured.get(against, {}):
                found.append(difference_between_runs(_after(runs, name), _after(results[against], name)))
            of_measure = [cell for one in found for cell in _difference(one)]
            cells += of_measure + [""] * (2 * len(others) - len(of_measure))
        if beyond:
            surplus = [one for changes in runs.values() if (one := beyond_majority(changes, majority))]
            cells += _difference(mean_over_runs([difference for _, difference in surplus])) if surplus else ["", ""]
        rows.append((recipe, *cells))
    return markdown_table(rows)


def _after(runs: Changes, name: str) -> list[Score]:
    return [changes[name].after for changes in runs.values()]


def _difference(estimate: SeedEstimate) -> tuple[str, str]:
    return plus_minus(estimate, 1, signed=True), _p(estimate)


def _p(difference: SeedEstimate) -> str:
    value = difference.p_value
    # An underflow, unless nothing varies.
    return "<1e-300" if not value and difference.standard_error else f"{value:.2g}"


def render_costs(recipes: Runs) -> str:
    """The cost of a run of each recipe, averaged over seeds, and the paper's figures of its method, if any."""
    paper = read_paper()
    methods = {recipe: next(iter(runs.values())).method for recipe, runs in recipes.items()}
    named = methods.values()
    sets = list(dict.fromkeys(row.trained_on for row in paper.rows if row.trained_on and row.method in named))
    head = ("recipe", "labels", "generated tokens", "hours", *(f"paper, average, {name}" for name in sets))
    rows: list[tuple[str, ...]] = [head]
    for recipe, runs in recipes.items():
        costs = [run.cost for run in runs.values()]
        of_method = {row.trained_on: row.average for row in paper.rows if row.method == methods[recipe]}
        rows.append(
            (
                recipe,
                f"{fmean(cost.labels for cost in costs):,.0f}",
                f"{fmean(cost.tokens for cost in costs):,.0f}",
                f"{fmean(cost.hours for cost in costs):.2f} {costs[0].device}-hours",
                *(f"{of_method[name]:.2f}" if name in of_method else "" for name in sets),
            )
        )
    base = paper.base
    of_base = f"\n\nThe paper's base, {base.method}: {base.average:.2f} ({paper.source})." if sets else ""
    return markdown_table(rows) + of_base


def render_votes(recipes: Runs) -> str:
    """The votes in the first and the last quarter of the steps, averaged over seeds; "" if no recipe has any."""
    rows = [
        (recipe, *(_first_and_last([run.votes[name] for run in runs.values() if name in run.votes]) for name in VOTES))
        for recipe, runs in recipes.items()
        if any(run.votes for run in runs.values())
    ]
    if not rows:
        return ""
    table = markdown_table([("recipe", *(f"{name}, %" for name in VOTES)), *rows])
    return (
        "The votes on training questions in the first → last quarter of the steps, whether or not the reward uses "
        f"them:\n\n{table}"
    )


def _first_and_last(runs: Sequence[tuple[float, float]]) -> str:
    first, last = ([100 * run[moment] for run in runs] for moment in (0, 1))
    return f"{fmean(first):.1f} → {fmean(last):.1f}" if runs else ""


def render_breakdowns(recipes: Runs) -> str:
    """Greedy accuracy of the base and of each recipe, averaged over seeds: a table per benchmark and breakdown."""
    base = next(run.base.breakdowns for runs in recipes.values() for run in runs.values())
    tables = []
    for (benchmark, name), of_base in base.items():
        rows = [("recipe", *(f"{label} ({questions})" for label, questions in of_base))]
        rows.append(("the base", *(f"{100 * value:.1f}" for value in of_base.values())))
        for recipe, runs in recipes.items():
            each = [run.trained.breakdowns for run in runs.values()]
            found = [breakdowns[benchmark, name] for breakdowns in each if (benchmark, name) in breakdowns]
            if found:
                values = (fmean(labels[label] for labels in found) for label in of_base)
                rows.append((recipe, *(f"{100 * value:.1f}" for value in values)))
        tables.append(
            f"Greedy accuracy by {name} of {benchmark} (number of questions), %, averaged over seeds:\n\n"
            f"{markdown_table(rows)}"
        )
    return "\n\n".join(tables)


def plot(results: Mapping[str, Changes], curves: Mapping[str, dict[int, float]]) -> bytes:
    """Draw a PNG: changes of greedy accuracy and pass@k of every run with their mean, and validation accuracy of
    every recipe over its steps.

    Args:
        curves: recipe -> step -> accuracy, averaged over seeds; empty without training.
    """
    first = next(iter(results))
    # The methods of one recipe are told apart by their own names.
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
        measured = [changes[name].difference.value for changes in runs.values() if name in changes]
        if measured:
            yield Points([100 * value for value in measured], [row] * len(measured), color=color)
            mean = gain(runs, name)
            error = [100 * mean.standard_error]
            yield Points([100 * mean.value], [row], color=color, marker="D", size=6, x_errors=error)
