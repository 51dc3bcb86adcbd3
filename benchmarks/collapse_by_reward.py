"""Which rewards keep pass@k: train every method several times as long as its recipe, without the collapse alarm.

    .venv/bin/python benchmarks/collapse_by_reward.py --methods mmupt soft_min scrl evol_rl entropy supervised random

Validates twenty times with 4 sampled responses per question, and evaluates the last policy with 16. Further arguments
are Hydra overrides of every run. After an interruption, the same command continues. Prints a table of the base and all
methods and draws `--picture`: accuracy, pass@4 and majority ratio by step. Runs have ten times the steps of the recipe
(`--times`); five methods on the hard task take a night. For a question type that the base never learned, the recipe's
own length suffices:

    .venv/bin/python benchmarks/collapse_by_reward.py --recipe mmupt_tiny_unlearned --times 1 --validations 8 \
        --methods mmupt soft_min self_judge scrl evol_rl token_entropy supervised random
"""

import argparse
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from mmupt.baseline_settings import BASELINES
from mmupt.compose import as_override, load_recipe
from mmupt.evaluation.benchmark_scores import GREEDY
from mmupt.reports.plots import PERCENT, Panel, Points, draw, palette
from mmupt.reports.tables import markdown_table, plus_minus
from mmupt.training.recipe_table import take_answers_of_base
from mmupt.training.run_report import read_changes
from verl_ext.collapse import History

SAMPLES = 16
# Validation samples, which pass@k needs.
SAMPLING = {"n": 4, "do_sample": True, "temperature": 1.0}
PASS_AT_K = f"pass@{SAMPLING['n']}"


def lengthened(recipe: str, overrides: Sequence[str], times: int, validations: int, target: Path) -> list[str]:
    """The overrides of a run, and those that lengthen it and set its validations."""
    config, _ = load_recipe(recipe, overrides)
    steps = times * config.trainer.total_training_steps
    keys = {
        "mmupt.run_folder": str(target),
        "mmupt.evaluation_samples": SAMPLES,
        "mmupt.stop_on_collapse.enable": False,
        "trainer.total_training_steps": steps,
        "trainer.test_freq": max(1, steps // validations),
        **{f"actor_rollout_ref.rollout.val_kwargs.{key}": value for key, value in SAMPLING.items()},
    }
    return [*overrides, *(as_override(key, value) for key, value in keys.items())]


def train(folder: Path, recipe: str, method: str, overrides: Sequence[str], times: int, validations: int) -> None:
    """Start or continue the run of a method; do nothing if it has finished."""
    target = folder / method
    # A run writes its report last.
    if not (target / "report.json").is_file():
        take_answers_of_base(folder, target)
        overrides = lengthened(recipe, [f"method={method}", *overrides], times, validations, target)
        subprocess.run([sys.executable, "-m", "mmupt", "train", recipe, *overrides], check=True)


def means_by_step(run_folder: Path) -> dict[str, dict[int, float]]:
    """Accuracy, pass@k and majority ratio of a run by step, in percent."""
    history = History(run_folder / "history.jsonl")
    measures = {
        name: {step: 100 * fmean(questions.values()) for step, questions in sorted(validations.items())}
        for name, validations in history.measures().items()
    }
    return {**measures, "majority ratio": {step: 100 * ratio for step, ratio in history.majority_ratios.items()}}


def report(folder: Path, methods: Sequence[str]) -> str:
    """Return a Markdown table: a row for the base and a row per finished method."""
    pass_at_samples = f"pass@{SAMPLES}"
    head = ("method", "steps", f"{GREEDY}, %", f"{pass_at_samples}, %", f"best {PASS_AT_K}, %", f"last {PASS_AT_K}, %")
    rows: list[tuple[str, ...]] = [head]
    for method in finished(folder, methods):
        changes, series = read_changes(folder / method), means_by_step(folder / method)[PASS_AT_K]
        best = max(series, key=lambda step: series[step])
        measured = [changes[name] for name in (GREEDY, pass_at_samples)]
        if len(rows) == 1:
            rows.append(("base", "", *(plus_minus(change.before, 1) for change in measured), "", ""))
        scores = (plus_minus(change.after, 1) for change in measured)
        rows.append(
            (method, str(max(series)), *scores, f"{series[best]:.1f} (step {best})", f"{[*series.values()][-1]:.1f}")
        )
    return markdown_table(rows)


def picture(courses: Mapping[str, Mapping[str, Mapping[int, float]]]) -> bytes:
    """Plot accuracy, pass@k and majority ratio by step for each method; returns a PNG."""
    colors = dict(zip(courses, palette(len(courses)), strict=True))
    panels = [
        Panel(
            f"{name}, %",
            [
                Points([*course[name]], [*course[name].values()], method, colors[method], "", joined=True)
                for method, course in courses.items()
            ],
            x_label="step",
            y_limits=PERCENT,
            whole_x=True,
        )
        for name in ("accuracy", PASS_AT_K, "majority ratio")
    ]
    return draw(panels, columns=3, size=(15, 4.5))


def finished(folder: Path, methods: Sequence[str]) -> list[str]:
    """The methods whose runs have a report."""
    return [method for method in methods if (folder / method / "report.json").is_file()]


def main() -> None:
    """Run every method that has not finished; print and draw all finished ones after each."""
    parser = argparse.ArgumentParser(description="Train methods far longer than their recipe; compare pass@k.")
    parser.add_argument("--methods", nargs="+", required=True, help="GRPO methods that `mmupt recipes` lists")
    parser.add_argument("--recipe", default="mmupt_tiny_hard", help="recipe of all methods (%(default)s)")
    parser.add_argument("--times", type=int, default=10, help="multiple of the recipe's steps (%(default)s)")
    parser.add_argument("--validations", type=int, default=20, help="per run, evenly spaced (%(default)s)")
    parser.add_argument(
        "--folder", type=Path, default=Path("runs/collapse_by_reward"), help="of all runs (%(default)s)"
    )
    parser.add_argument(
        "--picture", type=Path, default=Path("runs/collapse_by_reward/collapse.png"), help="PNG file (%(default)s)"
    )
    arguments, overrides = parser.parse_known_args()
    if baselines := set(arguments.methods) & {*BASELINES}:
        parser.error(f"--methods takes GRPO methods alone; drop {', '.join(sorted(baselines))}")
    for method in arguments.methods:
        train(arguments.folder, arguments.recipe, method, overrides, arguments.times, arguments.validations)
        print(report(arguments.folder, arguments.methods), flush=True)
        names = finished(arguments.folder, arguments.methods)
        arguments.picture.write_bytes(picture({name: means_by_step(arguments.folder / name) for name in names}))


if __name__ == "__main__":
    main()
