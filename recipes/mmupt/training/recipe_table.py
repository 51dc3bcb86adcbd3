"""Trains several methods or recipes with several seeds, and compares them in one table and plot (`mmupt table`).

Every run is `mmupt train` in its own process and folder, `FOLDER/NAME/seed_N`, where NAME is `mmupt.name` (mmupt_tiny,
mmupt_tiny-random). Runs with the same evaluation share the responses of the base model. After each run `table.md`,
`table.json` and `table.png` are rewritten with all finished runs of the folder, so that later commands may add methods
and seeds. The table has scores, gains with their paired tests, the cost of each run beside the paper's figures, votes
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

# Relative to the folder of a run.
BEFORE = Path("evaluation", "before.jsonl")


def run_folder(folder: Path, name: str, seed: int) -> Path:
    """Return the folder of one run."""
    return folder / name / f"seed_{seed}"


def select_runs(
    recipes: Sequence[str], methods: Sequence[str] = (), overrides: Sequence[str] = ()
) -> dict[str, list[str]]:
    """Return every recipe with every method: name of the run -> recipe and its overrides.

    Without methods, every recipe keeps its own. All of them are composed at once, so that errors show before training.

    Raises:
        RecipeError: a recipe cannot be composed, is not evaluated, or is evaluated on other files than the first one;
            or two runs have the same name.
    """
    selected, evaluated = {}, list[str]()
    for recipe in recipes:
        for method_override in [[f"method={method}"] for method in methods] or [[]]:
            config, _ = load_recipe(recipe, [*method_override, *overrides])
            if config.mmupt.evaluation_files is None:
                raise RecipeError(f"recipe {recipe} has nothing to compare: it needs mmupt.evaluation_files")
            files = file_list(config.mmupt.evaluation_files)
            evaluated = evaluated or files
            if files != evaluated:
                raise RecipeError(
                    f"recipe {recipe} is evaluated on {', '.join(files)}, and {recipes[0]} on {', '.join(evaluated)}: "
                    "a table compares runs on the same questions; make one table for each"
                )
            name = str(config.mmupt.name)
            if name in selected:
                raise RecipeError(f"mmupt.name={name}: two of the runs would share a folder; give each its own name")
            selected[name] = [recipe, *method_override, *overrides]
    return selected


def head_of(folder: Path, recipes: Sequence[str], seeds: Sequence[int]) -> Head:
    """The head of the console output: what the table compares, and where it is written."""
    return Head(
        {
            "compares": ", ".join(recipes),
            "seeds": ", ".join(map(str, seeds)),
            "writes to": f"{shown_path(folder)}, each run to RECIPE/seed_N there, its output to logs/train.log",
        }
    )


def train(target: Path, seed: int, recipe_and_overrides: Sequence[str]) -> bool:
    """Train or continue the run in the folder `target`; return whether it succeeded."""
    take_answers_of_base(target.parents[1], target)
    command = [sys.executable, "-m", "mmupt", "train", *recipe_and_overrides]
    command += [f"mmupt.seed={seed}", as_override("mmupt.run_folder", str(target))]
    return subprocess.run(command).returncode == 0


def outcome(target: Path) -> str:
    """The greedy accuracy of a finished run before and after training, as text."""
    scores = json.loads((target / "report.json").read_text())["scores"][GREEDY]
    before, after = (100 * scores[moment]["value"] for moment in ("before", "after"))
    return f"{GREEDY} {before:.1f} → {after:.1f} %"


def take_answers_of_base(folder: Path, run: Path) -> None:
    """Copy the base model's responses from another run below `folder`, because all runs begin with the same evaluation.

    A run with another evaluation, for example of another base, notices the different parameters and generates its own.
    """
    target = run / BEFORE
    sources = (file for file in sorted(folder.glob(f"**/{BEFORE}")) if read_parameters(file))
    if read_parameters(target) is None and (source := next(sources, None)):
        copy_responses(source, target)


def validation_curve(runs: Iterable[TableRun]) -> dict[int, float]:
    """Return step -> validation accuracy, averaged over runs, of the steps that all validated runs have."""
    curves = [run.validation for run in runs if run.validation]
    common = set.intersection(*map(set, curves)) if curves else set[int]()
    return {step: fmean(curve[step] for curve in curves) for step in sorted(common)}


def finished_runs(folder: Path) -> dict[str, list[int]]:
    """The seeds of the finished runs of a folder by recipe, both sorted."""
    seeds: dict[str, list[int]] = {}
    # report.json is the last file that a run writes.
    for report in folder.glob("*/seed_*/report.json"):
        if seed := re.fullmatch(r"seed_(\d+)", report.parent.name):
            seeds.setdefault(report.parents[1].name, []).append(int(seed[1]))
    return {recipe: sorted(seeds[recipe]) for recipe in sorted(seeds)}


def read_included(
    file: Path, folder: Path, selected: Mapping[str, Sequence[str]] | None = None, seeds: Collection[int] = ()
) -> Runs:
    """Read the runs of another table, to be shown in the table of `folder`.

    Args:
        selected: the runs to train, as `select_runs` returns them, each with every seed.
        seeds: the seeds of `selected`.

    Raises:
        ValueError: a run of the file has the recipe and seed of a run that is in the folder or to be trained, or other
            evaluation data; or as `read_table`.
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
            f"{file} has {recipe} with seed {seed}, too: choose other --seeds, or name your runs with mmupt.name=NAME"
        )
    for recipe, *overrides in selected.values():
        config, _ = load_recipe(recipe, overrides)
        files = {short_name(name): Path(name) for name in file_list(config.mmupt.evaluation_files)}
        for run in (run for runs in included.values() for run in runs.values()):
            digests = run.evaluation["data"]
            if files.keys() != digests.keys():
                raise ValueError(
                    f"{file} has runs evaluated on {', '.join(digests)}, but {recipe} is evaluated on "
                    f"{', '.join(files)}: choose --recipes with the same questions"
                )
            # A data set that does not exist yet is prepared by the first run and compared afterwards.
            if other := [name for name, path in files.items() if path.is_file() and sha256(path) != digests[name]]:
                raise ValueError(f"{file} has runs evaluated on other questions than those of {files[other[0]]}")
    return included


def read_majority(base: Path, run: TableRun) -> tuple[str, Score]:
    """Return the name (maj@k) and accuracy of the majority in a file of the base's responses by `mmupt eval`.

    Raises:
        ValueError: the file and the evaluation of `run` differ in questions, base or temperature; or the file has fewer
            than two samples per question.
    """
    evaluation = evaluation_of(read_parameters(base) or {})
    if differing := [name for name in ("data", "model", "temperature") if run.evaluation[name] != evaluation[name]]:
        raise ValueError(
            f"{base} and the evaluation of {run.recipe} with seed {run.seed} differ in {' and '.join(differing)}: give "
            "the responses of the base"
        )
    majority = majority_of(overall_scores(judge_file(base)))
    if majority is None:
        raise ValueError(
            f"{base} has fewer than two samples per question: a majority needs more, as by `mmupt eval ... samples=64`"
        )
    return majority


def check_references(known: Collection[str], against: str | None, base: Path | None) -> None:
    """Check the references of `write_table` before anything is trained.

    Raises:
        RecipeError: `against` is not one of the known recipes, or `base` is not a file of responses.
    """
    if against is not None and against not in known:
        raise RecipeError(f"--against {against}: the table has no such row{nearest(against, known)}")
    if base is not None and read_parameters(base) is None:
        raise RecipeError(f"--base: {base} with its parameters is missing: `mmupt eval` writes both")


def read_runs(folder: Path, first: Sequence[str], included: Runs) -> Runs:
    """The finished runs of a folder and the included runs: recipes in `first` in this order, then others by name.

    Raises:
        ValueError: runs were evaluated on different questions, or runs of one recipe with different numbers of samples;
            or as `read_run`.
    """
    own = [
        read_run(run_folder(folder, recipe, seed), recipe, seed)
        for recipe, seeds in finished_runs(folder).items()
        for seed in seeds
    ]
    all_runs = [*own, *(run for runs in included.values() for run in runs.values())]
    places = {name: place for place, name in enumerate(first)}
    runs = by_recipe(sorted(all_runs, key=lambda run: (places.get(run.recipe, len(places)), run.recipe)))
    for run in all_runs[1:]:
        if run.questions != all_runs[0].questions:
            raise ValueError(
                f"{run.recipe} with seed {run.seed} was not evaluated on the questions of {all_runs[0].recipe} with "
                f"seed {all_runs[0].seed}: make separate tables"
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
    """Write the comparison of all finished runs in a folder; return its tables, "" if no run has finished.

    Args:
        folder: contains the runs, and will contain the table.
        first: the recipes whose rows come first, in this order.
        against: the recipe that all others are tested against, by default the first row.
        base: responses of the base, whose majority all runs are tested against; by default those in each run.
        included: runs of another table, as `read_included` returns them.

    Raises:
        ValueError: as `read_runs` or `read_majority`.
    """
    runs = read_runs(folder, first, included or {})
    if not runs:
        return ""
    results = {recipe: {seed: run.changes for seed, run in seeds.items()} for recipe, seeds in runs.items()}
    some_run = next(run for seeds in runs.values() for run in seeds.values())
    majority = read_majority(base, some_run) if base else None
    sections = (
        render(results),
        render_tests(results, against or some_run.recipe, majority),
        render_costs(runs),
        render_votes(runs),
        render_breakdowns(runs),
    )
    table = "\n\n".join(section for section in sections if section)
    text = [
        f"# {folder.resolve().name}",
        "Before → after training, on the same questions. ± is one standard error over questions and, if there are "
        "several, seeds; p is that of a two-sided t-test with this error (verl_ext/scores/seed_variance.py), not "
        "corrected for the number of rows. With one seed, p says nothing about other seeds. Costs are per run without "
        "its evaluation, averaged over seeds; hours count a device whether busy or idle.",
        table,
        "![Change of greedy accuracy and pass@k of every run, and validation accuracy over steps](table.png)",
    ]
    curves = {recipe: validation_curve(seeds.values()) for recipe, seeds in runs.items()}
    write_atomically(folder / "table.png", plot(results, curves))
    write_atomically(folder / "table.md", "\n\n".join(text) + "\n")
    write_runs(folder / TABLE, runs)
    return table
