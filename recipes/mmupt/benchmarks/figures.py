"""The easy and the hard laptop task. Answers are whole numbers, compared by the project's own rule."""

from mmupt.benchmarks.benchmark import BENCHMARKS, Benchmark
from mmupt_data.figure_task import FigureDataset
from mmupt_data.hard_figure_task import FIGURES_HARD

for data in (
    FigureDataset("figures", "the laptop task: lengths and areas of small figures, drawn here", "main"),
    FigureDataset(
        "figures_hard", "the hard laptop task: longer chains of steps about small figures", "main", FIGURES_HARD
    ),
):
    BENCHMARKS.register(
        Benchmark(data, "test", breakdowns=lambda question: {"question_type": (question.question_type,)})
    )
