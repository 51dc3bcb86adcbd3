"""Compare self-generated questions with original ones, and several rounds with one long round of equal compute.

    .venv/bin/python benchmarks/self_generated.py --seeds 1 2 3

Trains the tiny model three ways per seed, with equal numbers of steps and responses:

    rounds     `make self-improve RECIPE=mmupt_tiny_self_improve ROUNDS=3`: each round's policy writes its questions
    one round  one round with the steps and images of all rounds; the base writes the questions
    original   `mmupt_tiny` for the same steps, on the questions that come with the figures

All are evaluated on the same held-out questions; after an interruption, the same command continues. Prints the scores
before and after, averaged over seeds, with standard errors over questions; the paired differences between the three;
and the share of kept questions per synthesis that can be answered, which training never sees.
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

RECIPE, ORIGINAL = "mmupt_tiny_self_improve", "mmupt_tiny"


def run(command: str, arguments: Sequence[str], overrides: Sequence[str]) -> None:
    """Run or continue a command of `mmupt`.

    Raises:
        subprocess.CalledProcessError: the command failed; its output says why.
    """
    subprocess.run([sys.executable, "-m", "mmupt", command, *arguments, *overrides], check=True)


def make(folder: Path, seed: int, rounds: int, overrides: Sequence[str]) -> None:
    """Start or continue the three runs of a seed."""
    config, _ = load_recipe(RECIPE, overrides)
    settings, steps = config.mmupt.self_improve, config.trainer.total_training_steps
    (images,) = (int(setting.partition("=")[2]) for setting in settings.synthesis if setting.startswith("limit="))
    common = [*overrides, f"mmupt.seed={seed}"]
    long = [*common, f"trainer.total_training_steps={rounds * steps}"]
    more_images = as_override("mmupt.self_improve.synthesis", [*settings.synthesis, f"limit={rounds * images}"])
    in_rounds, one_round, original = (folder / name / f"seed_{seed}" for name in ("rounds", "one_round", "original"))
    take_answers_of_base(folder, round_folder(in_rounds, 1) / "run")
    run("self-improve", [RECIPE, "--rounds", str(rounds), "--folder", str(in_rounds)], common)
    for run_folder in (round_folder(one_round, 1) / "run", original):
        take_answers_of_base(folder, run_folder)
    run("self-improve", [RECIPE, "--rounds", "1", "--folder", str(one_round)], [*long, more_images])
    run("train", [ORIGINAL, f"mmupt.run_folder={original}"], long)


def changes_of_rounds(folder: Path) -> list[dict[str, Change]]:
    """Read the change of each score from before the first round to after each round."""
    rounds = len(json.loads((folder / "rounds.json").read_text())["rounds"])
    changes = [read_changes(round_folder(folder, number) / "run") for number in range(1, rounds + 1)]
    return [{name: Change(changes[0][name].before, scores[name].after) for name in scores} for scores in changes]


def answerable(folder: Path) -> list[tuple[int, int]]:
    """Count the answerable questions and all questions that every synthesis below a folder has kept."""
    figures = figures_of(FOLDER / "figures" / "train.parquet", "train", 0)
    files = sorted(folder.glob("**/synthesis/candidates.jsonl"))
    return [count_answerable(read_candidates(file), figures)["kept"] for file in files]


def difference(left: Changes, right: Changes, name: str) -> str:
    """Format the paired difference of a final score, `left` minus `right`, averaged over seeds."""
    score = averages(left)[name].after - averages(right)[name].after
    return f"{100 * score.value:+.1f} ± {100 * score.standard_error:.1f} points"


def report(folder: Path, seeds: Sequence[int]) -> str:
    """Format all figures of the module's docstring for finished seeds."""
    rounds = {seed: changes_of_rounds(folder / "rounds" / f"seed_{seed}") for seed in seeds}
    results: Mapping[str, Changes] = {
        **{
            f"after round {number}": {seed: changes[number - 1] for seed, changes in rounds.items()}
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
    for left, right in (("one round", "original"), (last, "one round"), (last, "original")):
        lines += [f"{left} - {right}, {name}: {difference(results[left], results[right], name)}" for name in names]
    for name in ("rounds", "one_round"):
        counts = [answerable(folder / name / f"seed_{seed}") for seed in seeds]
        for number, by_seed in enumerate(zip(*counts, strict=False), start=1):
            shares = ", ".join(f"{100 * part / kept:.1f}" for part, kept in by_seed)
            mean = 100 * fmean(part / kept for part, kept in by_seed)
            questions = fmean(kept for _, kept in by_seed)
            lines.append(
                f"{name}, round {number}: {mean:.1f} % of {questions:.0f} questions can be answered ({shares})"
            )
    return "\n".join(lines)


def main() -> None:
    """Run all seeds that have not finished, and print the figures after each."""
    parser = argparse.ArgumentParser(description="Compare self-generated questions with original ones.")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3], help="(1 2 3)")
    parser.add_argument("--rounds", type=int, default=3, help="(%(default)s)")
    parser.add_argument("--folder", type=Path, default=Path("runs/self_generated"), help="of all runs (%(default)s)")
    arguments, overrides = parser.parse_known_args()
    for number, seed in enumerate(arguments.seeds, start=1):
        make(arguments.folder, seed, arguments.rounds, overrides)
        print(report(arguments.folder, arguments.seeds[:number]), flush=True)


if __name__ == "__main__":
    main()
