"""The tiny models of this repository: what each is built from."""

from dataclasses import dataclass
from pathlib import Path

from mmupt.tiny import FOLDER, HARD_FOLDER
from mmupt.tiny.demonstrations import HARD_SHARES, SHARES, Shares
from mmupt.tiny.vocabulary import HARD_TOKENS, TOKENS
from mmupt_data.figure_task import FIGURES, FigureTask
from mmupt_data.hard_figure_task import FIGURES_HARD


@dataclass(frozen=True)
class TinyModel:
    """What a tiny model is built from.

    Attributes:
        folder: where the repository has it.
        start: folder of the tiny model whose weights it starts from, None for random weights. The vocabulary opens with
            that model's tokens.
        task: the figures and questions that it is trained on and measured with.
        tokens: its vocabulary.
        shares: how often each skill is demonstrated.
        figures: number of distinct figures of the warm start.
        clean_steps: optimizer steps without wrong answers first.
        steps: optimizer steps in total.
    """

    folder: Path
    start: Path | None
    task: FigureTask
    tokens: tuple[str, ...]
    shares: Shares
    figures: int
    clean_steps: int
    steps: int


# By name of the task.
TINY_MODELS = {
    model.task.name: model
    for model in (
        TinyModel(FOLDER, None, FIGURES, TOKENS, SHARES, figures=9000, clean_steps=500, steps=1500),
        TinyModel(
            HARD_FOLDER, FOLDER, FIGURES_HARD, HARD_TOKENS, HARD_SHARES, figures=12000, clean_steps=400, steps=1100
        ),
    )
}
