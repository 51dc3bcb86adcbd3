"""The figure task of `mmupt_data.figure_task`: whole numbers, compared as the project compares all answers."""

from mmupt.benchmarks.benchmark_question import Benchmark, Question


def strata(question: Question) -> dict[str, tuple[str, ...]]:
    """The kind of the figure."""
    return {"question_type": (question.question_type,)}


FIGURES = Benchmark("figures", "test", (), strata)
