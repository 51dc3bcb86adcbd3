"""How each benchmark is scored by its authors. One module a benchmark; `data_source` of a row says which is meant.

A set that is none of them is scored by the project's own comparison of answers alone.
"""

from recipes.mmupt.benchmarks import figures, mathverse, mathvision, mathvista, wemath
from recipes.mmupt.benchmarks.judged import Unreadable, read_agreement, read_answer
from recipes.mmupt.benchmarks.question import OWN_RULE, Benchmark, Judged, Question, read_questions

BENCHMARKS = {
    one.name: one
    for one in (mathvista.MATHVISTA, mathvision.MATHVISION, mathverse.MATHVERSE, wemath.WEMATH, figures.FIGURES)
}

__all__ = [
    "BENCHMARKS",
    "OWN_RULE",
    "Benchmark",
    "Judged",
    "Question",
    "Unreadable",
    "read_agreement",
    "read_answer",
    "read_questions",
]
