"""Trains several methods or recipes with several seeds, and compares them in one table and plot, as `mmupt table` does.

Every run is `mmupt train` in its own process and folder, `DIR/NAME/seed_N` with the name of the run (mmupt_tiny,
mmupt_tiny-random). The base answers the evaluation once for all runs that evaluate it alike. After each run
`table.md`, `table.json` and `table.png` are rewritten with all finished runs of the folder, so that later commands may
add methods and seeds: scores, gains with their paired tests, the cost of each run with the paper's figures, the votes
over the steps, and greedy accuracy by the breakdowns of each benchmark.
"""

import json
import re
import subprocess
import sys
from collections.abc import Collection, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean

from omegaconf import OmegaConf

from mmupt.compose import RecipeError, as_override, load_recipe
from mmupt.console import Head, shown_path
from mmupt.evaluation.benchmark_scores import GREEDY
from mmupt.evaluation.response_files import copy_responses, read_parameters
from mmupt.evaluation.verdicts import judge_file
from mmupt.training.metric_series import Series, read_series
from mmupt.training.run_cost import read_cost
from mmupt.training.run_report import (
    changes_between,
    judge_evaluations,
    majority_of,
    overall_scores,
)
from mmupt.training.table_sections import (
    Breakdowns,
    Runs,
    plot,
    read_breakdowns,
    render,
    render_breakdowns,
    render_costs,
    render_tests,
    render_votes,
)
from verl_ext.files import write_atomically, write_json
from verl_ext.metric_names import VALIDATION_ACCURACY
from verl_ext.scores import Score
from verl_ext.unknown_keys import nearest

# In the folder of a run.
BEFORE = Path("evaluation", "before.jsonl")


def run_folder(folder: Path, name: str, seed: int) -> Path:
    """Return the folder of one run."""
    return folder / name / f"seed_{seed}"


def select_runs(
    recipes: Sequence[str], methods: Sequence[str] = (), overrides: Sequence[str] = ()
) -> dict[str, list[str]]:
    """Return each recipe with each method, as the recipe and its overrides by the name of the run.

    Without methods, every recipe keeps its own. All of them are composed, so that none fails after hours of others.

    Raises:
        RecipeError: as `load_recipe`, a recipe that is not evaluated, or two runs of one name.
    """
    selected = {}
    for recipe in recipes:
        for chosen in [[f"method={method}"] for method in methods] or [[]]:
            config, _ = load_recipe(recipe, [*chosen, *overrides])
            if config.mmupt.evaluation_files is None:
                raise RecipeError(f"recipe {recipe} has nothing to compare: it needs mmupt.evaluation_files")
            name = str(config.mmupt.name)
            if name in selected:
                raise RecipeError(
                    f"mmupt.name={name}: two of the runs would share a folder; give each a name of its own"
                )
            selected[name] = [recipe, *chosen, *overrides]
    return selected


def head_of(folder: Path, recipes: Sequence[str], seeds: Sequence[int]) -> Head:
    """What a table compares, for the first lines on the screen."""
    return Head(
        {
            "compares": ", ".join(recipes),
            "seeds": ", ".join(map(str, seeds)),
            "writes to": f"{shown_path(folder)}, each run to RECIPE/seed_N there, all its output to logs/train.log",
        }
    )


def train(target: Path, seed: int, recipe_and_overrides: Sequence[str]) -> bool:
    """Train or continue one run in its folder unless it is finished; return whether it succeeded."""
    take_answers_of_base(target.parents[1], target)
    command = [sys.executable, "-m", "mmupt", "train", *recipe_and_overrides]
    own = [f"mmupt.seed={seed}", as_override("mmupt.run_folder", str(target))]
    return subprocess.run([*command, *own]).returncode == 0


def outcome(target: Path) -> str:
    """What a finished run has gained, in a few words."""
    scores = json.loads((target / "report.json").read_text())["scores"][GREEDY]
    before, after = (100 * scores[moment]["value"] for moment in ("before", "after"))
    return f"{GREEDY} {before:.1f} → {after:.1f} %"


def take_answers_of_base(folder: Path, run: Path) -> None:
    """Copy the base model's responses from any run below `folder`, because all runs begin with the same evaluation.

    A run with another evaluation, for example of another base, notices it by the parameters and generates its own.
    """
    target = run / BEFORE
    made = (file for file in sorted(folder.glob(f"**/{BEFORE}")) if read_parameters(file))
    if read_parameters(target) is None and (source := next(made, None)):
        copy_responses(source, target)


def validation_curve(runs: Sequence[Series]) -> dict[int, float]:
    """Return the validation accuracy, averaged over runs and data sources, of the steps that all of them have."""
    lines = [steps for one in runs for name, steps in one.items() if re.fullmatch(VALIDATION_ACCURACY, name)]
    common = set.intersection(*(set(steps) for steps in lines)) if lines else set()
    return {step: fmean(steps[step] for steps in lines) for step in sorted(common)}


def read_method(run_folder: Path) -> str | None:
    """The paper's name of a run's method."""
    method = OmegaConf.select(OmegaConf.load(run_folder / "config.yaml"), "mmupt.paper_method")
    return None if method is None else str(method)


def finished_runs(folder: Path, first: Sequence[str] = ()) -> dict[str, list[int]]:
    """The seeds of the finished runs of a folder by recipe: those of `first` in their order, then others by name."""
    found: dict[str, list[int]] = {}
    # The last file that a run writes.
    for report in folder.glob("*/seed_*/report.json"):
        if seed := re.fullmatch(r"seed_(\d+)", report.parent.name):
            found.setdefault(report.parents[1].name, []).append(int(seed[1]))
    names = [name for name in first if name in found] + sorted(found.keys() - set(first))
    return {name: sorted(found[name]) for name in names}


def read_majority(base: Path, run: Path) -> tuple[str, Score]:
    """The accuracy of the majority in a file of the base's responses by `mmupt eval`, with its name.

    The evaluation of the run in the folder `run` asks the same questions of the same base at the same temperature.

    Raises:
        ValueError: they are not the same, or there are fewer than two samples.
    """
    ours, theirs = (read_parameters(file) or {} for file in (base, run / BEFORE))
    if differing := [name for name in ("data", "model", "temperature") if ours.get(name) != theirs.get(name)]:
        raise ValueError(
            f"{base} and {run / BEFORE} differ in {' and '.join(differing)}: give the responses of the base"
        )
    found = majority_of(overall_scores(judge_file(base)))
    if found is None:
        raise ValueError(
            f"{base} has fewer than two samples per question: a majority needs `mmupt eval ... samples=64`"
        )
    return found


def check_references(folder: Path, recipes: Collection[str], against: str | None, base: Path | None) -> None:
    """Refuse, before anything is trained, what `write_table` cannot test against.

    Raises:
        RecipeError: neither one of these recipes nor a finished run of the folder is called `against`, or `base` is no
            file of responses.
    """
    known = {*recipes, *finished_runs(folder)}
    if against is not None and against not in known:
        raise RecipeError(f"--against {against}: the table has no such row{nearest(against, known)}")
    if base is not None and read_parameters(base) is None:
        raise RecipeError(f"--base: {base} with its parameters is missing: `mmupt eval` makes both")


def write_table(folder: Path, recipes: Sequence[str] = (), against: str | None = None, base: Path | None = None) -> str:
    """Write the comparison of all finished runs in a folder; return its tables, "" if there are none yet.

    Args:
        folder: of the runs, and of the table.
        recipes: whose rows come first, in this order.
        against: the recipe that all are tested against, the first row unless given.
        base: responses of the base whose majority is tested against; those of the runs' own evaluations unless given.

    Raises:
        ValueError: runs of one recipe that were not evaluated alike, or as `read_majority` or
            `mmupt.training.run_report` raise it.
    """
    finished = finished_runs(folder, recipes)
    if not finished:
        return ""
    results: dict[str, Runs] = {name: {} for name in finished}
    trained: dict[str, list[Breakdowns]] = {name: [] for name in finished}
    base_breakdowns: Breakdowns = {}
    for name, seeds in finished.items():
        for seed in seeds:
            before, after = judge_evaluations(run_folder(folder, name, seed))
            results[name][seed] = changes_between(before, after)
            trained[name].append(read_breakdowns(after))
            base_breakdowns = base_breakdowns or read_breakdowns(before)
    for name, runs in results.items():
        if len({tuple(changes) for changes in runs.values()}) > 1:
            raise ValueError(f"the runs in {folder / name} were not evaluated with the same number of samples")
    folders = {recipe: [run_folder(folder, recipe, seed) for seed in runs] for recipe, runs in results.items()}
    costs = {recipe: [read_cost(one) for one in of_recipe] for recipe, of_recipe in folders.items()}
    methods = {recipe: read_method(of_recipe[0]) for recipe, of_recipe in folders.items()}
    first = next(iter(results))
    tests = render_tests(results, against or first, read_majority(base, folders[first][0]) if base else None)
    series = {recipe: [read_series(one / "tensorboard") for one in of_recipe] for recipe, of_recipe in folders.items()}
    of_votes, by_label = render_votes(series), render_breakdowns(base_breakdowns, trained)
    parts = (render(results), tests, render_costs(costs, methods), of_votes, by_label)
    table = "\n\n".join(part for part in parts if part)
    curves = {recipe: validation_curve(runs) for recipe, runs in series.items()}
    text = [
        f"# {folder.resolve().name}",
        "Before → after training, on the same questions. ± is one standard error over questions and, with several of "
        "them, seeds; p is of a two-sided t-test with that error (verl_ext/scores/seed_variance.py), and not corrected "
        "for the number of rows. One seed says nothing about others: its p is about questions alone. "
        "Costs are those of a run without its evaluation, averaged over seeds; hours, those that a device was there.",
        table,
        "![Change of greedy accuracy and pass@k of every run, and validation accuracy over steps](table.png)",
    ]
    write_atomically(folder / "table.png", plot(results, curves))
    write_atomically(folder / "table.md", "\n\n".join(text) + "\n")
    content = {
        recipe: {
            "method": methods[recipe],
            "cost": {str(seed): asdict(cost) for seed, cost in zip(runs, costs[recipe], strict=True)},
            "scores": {
                str(seed): {
                    name: {"before": change.before.value, "after": change.after.value}
                    for name, change in changes.items()
                }
                for seed, changes in runs.items()
            },
            "breakdowns": {
                str(seed): {
                    ", ".join(key): {label: value for (label, _), value in one.items()} for key, one in of.items()
                }
                for seed, of in zip(runs, trained[recipe], strict=True)
            },
        }
        for recipe, runs in results.items()
    }
    write_json(folder / "table.json", content)
    return table
