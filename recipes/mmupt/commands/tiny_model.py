"""Build a tiny model that the CPU recipes start from, or measure it.

build       train it from random weights, and measure it
measure     print its accuracy on held-out figures and its other skills
answerable  count the answerable questions among those it wrote

    mmupt tiny-model build
    mmupt tiny-model build --task figures_hard
    mmupt tiny-model measure runs/mmupt_tiny/model
    mmupt tiny-model answerable runs/synthesis/model/candidates.jsonl --data datasets/figures/train.parquet
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mmupt.commands import Choices, as_messages

if TYPE_CHECKING:
    from mmupt_data.figure_task import Split


def run(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """Run the action."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION", help="build, measure or answerable")
    build = actions.add_parser("build", description="Build the tiny model and print its measurements.")
    build.add_argument("--output", type=Path, help="output folder (the repository's model folder)")
    build.add_argument("--seed", type=int, default=0, help="seed of weights, figures and demonstrations (%(default)s)")
    measure = actions.add_parser("measure", description="Measure a tiny model on held-out figures.")
    measure.add_argument("model", type=Path, nargs="?", help="folder of the model (the repository's)")
    answerable = actions.add_parser("answerable", description="Count the written questions that can be answered.")
    answerable.add_argument("candidates", type=Path, help="candidates.jsonl of `mmupt synthesize`")
    answerable.add_argument("--data", type=Path, required=True, help="parquet file of the figures")
    split = answerable.add_argument("--split", default="train", help="split of the figures (train)")
    split.choices = Choices("mmupt_data.figure_task:SPLIT_SHARES")
    answerable.add_argument("--seed", type=int, default=0, help="seed that the figures were drawn with (%(default)s)")
    for action in (build, measure, answerable):
        task = action.add_argument("--task", default="figures", help="kind of figures (figures)")
        task.choices = Choices("mmupt_data.hard_figure_task:FIGURE_TASKS")
    arguments = vars(parser.parse_args(words))
    functions: dict[str, Callable[..., None]] = {"build": _build, "measure": _measure, "answerable": _answerable}
    with as_messages(OSError, ValueError):
        functions[arguments.pop("action")](**arguments)


def _build(task: str, seed: int, output: Path | None) -> None:
    from mmupt.tiny.build_model import build
    from mmupt.tiny.tiny_models import TINY_MODELS

    tiny = TINY_MODELS[task]
    build(replace(tiny, folder=output or tiny.folder), seed)


def _measure(task: str, model: Path | None) -> None:
    from mmupt.tiny.measure import format_metrics, load, measure
    from mmupt.tiny.tiny_models import TINY_MODELS

    tiny = TINY_MODELS[task]
    print(format_metrics(measure(*load(model or tiny.folder), tiny.task)))


def _answerable(candidates: Path, data: Path, split: "Split", seed: int, task: str) -> None:
    from mmupt.synthesis.synthesized_dataset import read_candidates
    from mmupt.tiny.answerable import answerable_lines, figures_of
    from mmupt_data.hard_figure_task import FIGURE_TASKS

    print(answerable_lines(read_candidates(candidates), figures_of(data, split, seed, FIGURE_TASKS[task])))
