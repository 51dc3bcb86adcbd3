"""The specifications of this repository's tiny models."""

from dataclasses import dataclass
from pathlib import Path

from mmupt.tiny import FOLDER, HARD_FOLDER
from mmupt.tiny.demonstrations import HARD_SHARES, SHARES, Shares
from mmupt.tiny.vocabulary import HARD_TOKENS, TOKENS
from mmupt_data.figure_task import FIGURES, FigureTask
from mmupt_data.hard_figure_task import FIGURES_HARD


@dataclass(frozen=True)
class TinyModel:
    """The specification of a tiny model.

    Attributes:
        folder: the model's folder in the repository.
        start: folder of the tiny model whose weights it starts from, None for random weights. `tokens` starts with
            the tokens of that model.
        task: figures and questions for training and measurements.
        tokens: vocabulary.
        shares: share of each skill in the demonstrations.
        figures: number of distinct figures of the warm start.
        clean_steps: number of optimizer steps at the start without wrong answers.
        steps: number of optimizer steps in total.
    """

    folder: Path
    start: Path | None
    task: FigureTask
    tokens: tuple[str, ...]
    shares: Shares
    figures: int
    clean_steps: int
    steps: int


# Name of the task -> model.
TINY_MODELS = {
    model.task.name: model
    for model in (
        TinyModel(FOLDER, None, FIGURES, TOKENS, SHARES, figures=9000, clean_steps=500, steps=1500),
        TinyModel(
            HARD_FOLDER, FOLDER, FIGURES_HARD, HARD_TOKENS, HARD_SHARES, figures=12000, clean_steps=400, steps=1100
        ),
    )
}
