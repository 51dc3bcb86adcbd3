"""The laptop task of `mmupt_data.figure_task`: whole numbers, compared as the project compares all answers."""

from mmupt.benchmarks.benchmark import BENCHMARKS, Benchmark, Question
from mmupt_data.figure_task import FigureDataset


def breakdowns(question: Question) -> dict[str, tuple[str, ...]]:
    """The kind of the figure."""
    return {"question_type": (question.question_type,)}


BENCHMARKS.register(
    Benchmark(
        data=FigureDataset("figures", "the laptop task: lengths and areas of small figures, drawn here", "main"),
        split="test",
        breakdowns=breakdowns,
    )
)
