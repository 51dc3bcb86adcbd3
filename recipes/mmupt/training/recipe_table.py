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
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean

from mmupt.compose import RecipeError, as_override, load_recipe
from mmupt.console import Head, shown_path
from mmupt.evaluation.benchmark_scores import GREEDY
from mmupt.evaluation.response_files import copy_responses, read_parameters
from mmupt.evaluation.verdicts import judge_file
from mmupt.training.run_report import majority_of, overall_scores
from mmupt.training.table_runs import (
    TABLE,
    Runs,
    TableRun,
    by_recipe,
    evaluation_of,
    read_run,
    read_table,
    short_name,
    write_runs,
)
from mmupt.training.table_sections import plot, render, render_breakdowns, render_costs, render_tests, render_votes
from verl_ext.files import file_list, sha256, write_atomically
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
        RecipeError: as `load_recipe`, a recipe that is not evaluated or on other files than the first, or two runs of
            one name.
    """
    selected, evaluated = {}, list[str]()
    for recipe in recipes:
        for chosen in [[f"method={method}"] for method in methods] or [[]]:
            config, _ = load_recipe(recipe, [*chosen, *overrides])
            if config.mmupt.evaluation_files is None:
                raise RecipeError(f"recipe {recipe} has nothing to compare: it needs mmupt.evaluation_files")
            files = file_list(config.mmupt.evaluation_files)
            evaluated = evaluated or files
            if files != evaluated:
                raise RecipeError(
                    f"recipe {recipe} is evaluated on {', '.join(files)}, and {recipes[0]} on {', '.join(evaluated)}: "
                    "a table compares runs on the same questions; make one table of each"
                )
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


def validation_curve(runs: Iterable[TableRun]) -> dict[int, float]:
    """Return the validation accuracy, averaged over runs, of the steps that all of them have."""
    lines = [run.validation for run in runs if run.validation]
    common = set.intersection(*map(set, lines)) if lines else set[int]()
    return {step: fmean(steps[step] for steps in lines) for step in sorted(common)}


def finished_runs(folder: Path) -> dict[str, list[int]]:
    """The seeds of the finished runs of a folder by recipe, both sorted."""
    found: dict[str, list[int]] = {}
    # The last file that a run writes.
    for report in folder.glob("*/seed_*/report.json"):
        if seed := re.fullmatch(r"seed_(\d+)", report.parent.name):
            found.setdefault(report.parents[1].name, []).append(int(seed[1]))
    return {name: sorted(found[name]) for name in sorted(found)}


def read_included(
    file: Path, folder: Path, selected: Mapping[str, Sequence[str]] | None = None, seeds: Collection[int] = ()
) -> Runs:
    """Read the runs of another table, which the table of `folder` shows beside its own.

    Args:
        selected: the runs to train, as `select_runs` returns them, each with every seed.
        seeds: of these.

    Raises:
        ValueError: a run of the file has the recipe and seed of one of the folder or of one to be trained, another data
            set than theirs, or as `read_table`.
        FileNotFoundError: there is no such file.
    """
    if not file.is_file():
        raise FileNotFoundError(f"--include: {file} is missing: name the {TABLE} of another folder of `mmupt table`")
    included, selected = read_table(file), selected or {}
    own = {(recipe, seed) for recipe, seeds in finished_runs(folder).items() for seed in seeds}
    theirs = {(recipe, seed) for recipe, seeds in included.items() for seed in seeds}
    own |= {(recipe, seed) for recipe in selected for seed in seeds}
    if both := sorted(theirs & own):
        recipe, seed = both[0]
        raise ValueError(
            f"{file} has {recipe} with seed {seed}, too: choose other --seeds, or name your runs by mmupt.name=NAME"
        )
    for recipe, *overrides in selected.values():
        config, _ = load_recipe(recipe, overrides)
        files = {short_name(name): Path(name) for name in file_list(config.mmupt.evaluation_files)}
        for run in (run for runs in included.values() for run in runs.values()):
            digests = run.evaluation["data"]
            if files.keys() != digests.keys():
                raise ValueError(
                    f"{file} has runs evaluated on {', '.join(digests)}, and {recipe} is evaluated on "
                    f"{', '.join(files)}: choose --recipes with the same questions"
                )
            # A data set that is prepared on first use is compared after the first run.
            if other := [name for name, path in files.items() if path.is_file() and sha256(path) != digests[name]]:
                raise ValueError(f"{file} has runs evaluated on other questions than those of {files[other[0]]}")
    return included


def read_majority(base: Path, run: TableRun) -> tuple[str, Score]:
    """The accuracy of the majority in a file of the base's responses by `mmupt eval`, with its name.

    The evaluation of `run` asks the same questions of the same base at the same temperature.

    Raises:
        ValueError: they are not the same, or there are fewer than two samples.
    """
    theirs = evaluation_of(read_parameters(base) or {})
    if differing := [name for name in ("data", "model", "temperature") if run.evaluation[name] != theirs[name]]:
        raise ValueError(
            f"{base} and the evaluation of {run.recipe} with seed {run.seed} differ in {' and '.join(differing)}: give "
            "the responses of the base"
        )
    found = majority_of(overall_scores(judge_file(base)))
    if found is None:
        raise ValueError(
            f"{base} has fewer than two samples per question: a majority needs `mmupt eval ... samples=64`"
        )
    return found


def check_references(known: Collection[str], against: str | None, base: Path | None) -> None:
    """Refuse, before anything is trained, what `write_table` cannot test against.

    Raises:
        RecipeError: `against` is none of the known recipes, or `base` is no file of responses.
    """
    if against is not None and against not in known:
        raise RecipeError(f"--against {against}: the table has no such row{nearest(against, known)}")
    if base is not None and read_parameters(base) is None:
        raise RecipeError(f"--base: {base} with its parameters is missing: `mmupt eval` makes both")


def read_runs(folder: Path, first: Sequence[str], included: Runs) -> Runs:
    """The finished runs of a folder and the included ones: recipes of `first` in their order, then others by name.

    Raises:
        ValueError: two runs were evaluated on different questions, runs of one recipe have different numbers of
            samples, or as `read_run`.
    """
    own = [
        read_run(run_folder(folder, recipe, seed), recipe, seed)
        for recipe, seeds in finished_runs(folder).items()
        for seed in seeds
    ]
    each = [*own, *(run for runs in included.values() for run in runs.values())]
    places = {name: place for place, name in enumerate(first)}
    runs = by_recipe(sorted(each, key=lambda run: (places.get(run.recipe, len(places)), run.recipe)))
    for run in each[1:]:
        if run.questions != each[0].questions:
            raise ValueError(
                f"{run.recipe} with seed {run.seed} was not evaluated on the questions of {each[0].recipe} with seed "
                f"{each[0].seed}: tabulate them separately"
            )
    for recipe, seeds in runs.items():
        if len({tuple(run.changes) for run in seeds.values()}) > 1:
            raise ValueError(f"the runs of {recipe} were not evaluated with the same number of samples")
    return runs


def write_table(
    folder: Path,
    first: Sequence[str] = (),
    against: str | None = None,
    base: Path | None = None,
    included: Runs | None = None,
) -> str:
    """Write the comparison of all finished runs in a folder; return its tables, "" if there are none yet.

    Args:
        folder: of the runs, and of the table.
        first: the recipes whose rows come first, in this order.
        against: the recipe that all are tested against, the first row unless given.
        base: responses of the base whose majority is tested against; those of the runs' own evaluations unless given.
        included: runs of another table, as `read_included` reads them.

    Raises:
        ValueError: as `read_runs` or `read_majority`.
    """
    runs = read_runs(folder, first, included or {})
    if not runs:
        return ""
    results = {recipe: {seed: run.changes for seed, run in seeds.items()} for recipe, seeds in runs.items()}
    some_run = next(run for seeds in runs.values() for run in seeds.values())
    majority = read_majority(base, some_run) if base else None
    parts = (
        render(results),
        render_tests(results, against or some_run.recipe, majority),
        render_costs(runs),
        render_votes(runs),
        render_breakdowns(runs),
    )
    table = "\n\n".join(part for part in parts if part)
    text = [
        f"# {folder.resolve().name}",
        "Before → after training, on the same questions. ± is one standard error over questions and, with several of "
        "them, seeds; p is of a two-sided t-test with that error (verl_ext/scores/seed_variance.py), and not corrected "
        "for the number of rows. One seed says nothing about others: its p is about questions alone. "
        "Costs are those of a run without its evaluation, averaged over seeds; hours, those that a device was there.",
        table,
        "![Change of greedy accuracy and pass@k of every run, and validation accuracy over steps](table.png)",
    ]
    curves = {recipe: validation_curve(seeds.values()) for recipe, seeds in runs.items()}
    write_atomically(folder / "table.png", plot(results, curves))
    write_atomically(folder / "table.md", "\n\n".join(text) + "\n")
    write_runs(folder / TABLE, runs)
    return table
