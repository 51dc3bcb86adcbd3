"""Try the same learning rates with every method that `make table` compares, and score them on validation questions.

    .venv/bin/python benchmarks/tuning.py --methods mmupt lmsi
    .venv/bin/python benchmarks/tuning.py --recipe mmupt_tiny_hard --methods mmupt supervised soft

Trains the recipe with every method and learning rate. Methods that make one pass over a training set (docs/papers.md)
get one more trial, with the middle rate and several passes. The seed is not one of the table's, and no test question is
read: policies are evaluated on the validation questions. Further arguments are Hydra overrides of every trial. After an
interruption, the same command continues. Prints greedy accuracy and mean@k of all trials per method, best greedy
accuracy first; mean@k breaks ties.
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from mmupt.baseline_settings import BASELINES
from mmupt.compose import as_override, load_recipe
from mmupt.evaluation.benchmark_scores import GREEDY
from mmupt.reports.tables import markdown_table
from mmupt.training.recipe_table import take_answers_of_base
from mmupt.training.run_report import read_changes
from verl_ext.files import file_list

LEARNING_RATES = (3e-5, 1e-4, 3e-4)
PASSES = 3
SEED = 0


def trials(method: str) -> dict[str, list[str]]:
    """The overrides of each trial of a method, by folder name; every trial sets all settings that are varied."""
    if method not in BASELINES:
        return {f"lr_{rate:g}": [f"actor_rollout_ref.actor.optim.lr={rate:g}"] for rate in LEARNING_RATES}

    def trial(rate: float, passes: int) -> list[str]:
        keys = {"learning_rate": f"{rate:g}", "epochs": str(passes)}
        return [
            f"mmupt.baseline.{trainer}.{key}={keys[key]}" for trainer, _ in BASELINES[method].stages for key in keys
        ]

    middle = LEARNING_RATES[len(LEARNING_RATES) // 2]
    one_pass = {f"lr_{rate:g}": trial(rate, 1) for rate in LEARNING_RATES}
    return one_pass | {f"lr_{middle:g}_passes_{PASSES}": trial(middle, PASSES)}


def train(folder: Path, recipe: str, method: str, name: str, overrides: Sequence[str]) -> None:
    """Start or continue a trial; do nothing if it has finished."""
    target = folder / recipe / method / name
    # A run writes its report last.
    if (target / "report.json").is_file():
        return
    config, _ = load_recipe(recipe, [f"method={method}", *overrides])
    take_answers_of_base(folder, target)
    keys = {
        "mmupt.seed": SEED,
        "mmupt.run_folder": str(target),
        "mmupt.evaluation_files": file_list(config.data.val_files),
    }
    command = [sys.executable, "-m", "mmupt", "train", recipe, f"method={method}", *overrides]
    subprocess.run([*command, *(as_override(key, value) for key, value in keys.items())], check=True)


def report(folder: Path, methods: Sequence[str]) -> str:
    """Return a Markdown table with a row per finished trial in the folder of a recipe."""
    rows: list[tuple[str, ...]] = [("method", "trial", f"{GREEDY}, %", "mean@k, %")]
    for method in methods:
        scores = []
        for name in trials(method):
            if (folder / method / name / "report.json").is_file():
                changes = read_changes(folder / method / name)
                (mean_at_k,) = (change for score, change in changes.items() if score.startswith("mean@"))
                scores.append((changes[GREEDY].after.value, mean_at_k.after.value, name))
        for greedy, mean, name in sorted(scores, key=lambda score: score[:2], reverse=True):
            rows.append((method, name, f"{100 * greedy:.1f}", f"{100 * mean:.1f}"))
    return markdown_table(rows)


def main() -> None:
    """Run all trials that have not finished; print the table after each method."""
    parser = argparse.ArgumentParser(description="Try the same learning rates with several methods.")
    parser.add_argument("--methods", nargs="+", required=True, help="methods that `mmupt recipes` lists")
    parser.add_argument("--recipe", default="mmupt_tiny", help="recipe of all methods (%(default)s)")
    parser.add_argument("--folder", type=Path, default=Path("runs/tuning"), help="of all trials (%(default)s)")
    arguments, overrides = parser.parse_known_args()
    for method in arguments.methods:
        for name, settings in trials(method).items():
            train(arguments.folder, arguments.recipe, method, name, [*settings, *overrides])
        print(report(arguments.folder / arguments.recipe, arguments.methods), flush=True)


if __name__ == "__main__":
    main()
