"""Self-generated questions against original ones and the base, and three rounds against one long run of equal compute.

    .venv/bin/python benchmarks/self_generated.py --seeds 1 2 3

Trains, for every seed, on the tiny model and equally many steps and responses:

    rounds     `make self-improve RECIPE=mmupt_tiny_self_improve ROUNDS=3`, each round with questions of its own policy
    one round  the same with one round of three times as many steps; the base asks about three times as many images
    original   `mmupt_tiny` for as many steps, on the questions that come with the figures

All are continued by the same command after an interruption, and evaluated on the same held-out questions. Prints the
scores before and after, averaged over seeds, with standard errors over questions; the differences between the three,
question by question; and which share of the questions kept in each synthesis can be answered, which no training knows.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from mmupt.compose import as_override, load_recipe
from mmupt.evaluation.benchmark_scores import GREEDY
from mmupt.self_improvement.rounds import round_folder
from mmupt.synthesis.synthesized_dataset import read_candidates
from mmupt.tiny.answerable import count_answerable, figures_of
from mmupt.training.recipe_table import take_answers_of_base
from mmupt.training.run_report import Change, read_changes
from mmupt.training.table_sections import Changes, averages, render
from mmupt_data.prepare import FOLDER

RECIPE, ORIGINAL, ROUNDS = "mmupt_tiny_self_improve", "mmupt_tiny", 3


def run(command: str, arguments: Sequence[str], overrides: Sequence[str]) -> None:
    """Run, or continue, a command of `mmupt`; its own messages say what went wrong."""
    subprocess.run([sys.executable, "-m", "mmupt", command, *arguments, *overrides], check=True)


def make(folder: Path, seed: int, overrides: Sequence[str]) -> None:
    """Make what is missing of the three runs of a seed."""
    config, _ = load_recipe(RECIPE, overrides)
    settings, steps = config.mmupt.self_improve, config.trainer.total_training_steps
    (images,) = (int(one.partition("=")[2]) for one in settings.synthesis if one.startswith("limit="))
    common = [*overrides, f"mmupt.seed={seed}"]
    long = [*common, f"trainer.total_training_steps={ROUNDS * steps}"]
    asked = as_override("mmupt.self_improve.synthesis", [*settings.synthesis, f"limit={ROUNDS * images}"])
    rounds, one_round, original = (folder / name / f"seed_{seed}" for name in ("rounds", "one_round", "original"))
    take_answers_of_base(folder, round_folder(rounds, 1) / "run")
    run("self-improve", [RECIPE, "--rounds", str(ROUNDS), "--folder", str(rounds)], common)
    for other in (round_folder(one_round, 1) / "run", original):
        take_answers_of_base(folder, other)
    run("self-improve", [RECIPE, "--rounds", "1", "--folder", str(one_round)], [*long, asked])
    run("train", [ORIGINAL, f"mmupt.run_folder={original}"], long)


def changes_of_rounds(folder: Path) -> list[dict[str, Change]]:
    """The scores before all rounds and after each one."""
    made = len(json.loads((folder / "rounds.json").read_text())["rounds"])
    each = [read_changes(round_folder(folder, number) / "run") for number in range(1, made + 1)]
    return [{name: Change(each[0][name].before, one[name].after) for name in one} for one in each]


def answerable(folder: Path) -> list[tuple[int, int]]:
    """For every synthesis below a folder, how many of the questions that were kept can be answered, of how many."""
    figures = figures_of(FOLDER / "figures" / "train.parquet", "train", 0)
    files = sorted(folder.glob("**/synthesis/candidates.jsonl"))
    return [count_answerable(read_candidates(file), figures)["kept"] for file in files]


def difference(one: Changes, other: Changes, name: str) -> str:
    """How much more of a score the runs of one have, averaged over seeds, question by question."""
    found = averages(one)[name].after - averages(other)[name].after
    return f"{100 * found.value:+.1f} ± {100 * found.standard_error:.1f} points"


def report(folder: Path, seeds: Sequence[int]) -> str:
    """All figures that the module describes, of the seeds that have finished."""
    rounds = {seed: changes_of_rounds(folder / "rounds" / f"seed_{seed}") for seed in seeds}
    results: Mapping[str, Changes] = {
        **{
            f"after round {number}": {seed: each[number - 1] for seed, each in rounds.items()}
            for number in range(1, min(map(len, rounds.values())) + 1)
        },
        "one round": {
            seed: read_changes(round_folder(folder / "one_round" / f"seed_{seed}", 1) / "run") for seed in seeds
        },
        "original": {seed: read_changes(folder / "original" / f"seed_{seed}") for seed in seeds},
    }
    last = list(results)[-3]
    lines = [render(results), ""]
    names = [name for name in results[last][seeds[0]] if name == GREEDY or name.startswith("mean@")]
    for one, other in (("one round", "original"), (last, "one round"), (last, "original")):
        lines += [f"{one} - {other}, {name}: {difference(results[one], results[other], name)}" for name in names]
    for name in ("rounds", "one_round"):
        counts = [answerable(folder / name / f"seed_{seed}") for seed in seeds]
        for number, of_seeds in enumerate(zip(*counts, strict=False), start=1):
            shares = ", ".join(f"{100 * part / whole:.1f}" for part, whole in of_seeds)
            mean = 100 * fmean(part / whole for part, whole in of_seeds)
            kept = fmean(whole for _, whole in of_seeds)
            lines.append(f"{name}, round {number}: {mean:.1f} % of {kept:.0f} questions can be answered ({shares})")
    return "\n".join(lines)


def main() -> None:
    """Make what is missing, seed by seed, and print the figures after each."""
    parser = argparse.ArgumentParser(description="Compare self-generated questions with original ones.")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--folder", type=Path, default=Path("runs/self_generated"))
    arguments, overrides = parser.parse_known_args()
    for number, seed in enumerate(arguments.seeds, start=1):
        make(arguments.folder, seed, overrides)
        print(report(arguments.folder, arguments.seeds[:number]), flush=True)


if __name__ == "__main__":
    main()
