"""The easy and the hard laptop task. Answers are whole numbers, compared by the project's own rule."""

from mmupt.benchmarks.benchmark import BENCHMARKS, Benchmark, Question
from mmupt_data.figure_task import FigureDataset
from mmupt_data.hard_figure_task import FIGURES_HARD


def breakdowns(question: Question) -> dict[str, tuple[str, ...]]:
    """The type of the question."""
    return {"question_type": (question.question_type,)}


BENCHMARKS.register(
    Benchmark(
        data=FigureDataset("figures", "the laptop task: lengths and areas of small figures, drawn here", "main"),
        split="test",
        breakdowns=breakdowns,
    )
)
BENCHMARKS.register(
    Benchmark(
        data=FigureDataset(
            "figures_hard", "the hard laptop task: longer chains of steps about small figures", "main", FIGURES_HARD
        ),
        split="test",
        breakdowns=breakdowns,
    )
)
