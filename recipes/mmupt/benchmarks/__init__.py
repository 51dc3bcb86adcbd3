"""How each benchmark is scored by its authors. One module a benchmark; `data_source` of a row says which is meant.

A set that is none of them is scored by the project's own comparison of answers alone.
"""

from mmupt.benchmarks import figures, mathverse, mathvision, mathvista, wemath
from mmupt.benchmarks.benchmark_question import (
    OWN_RULE,
    OWN_VERSION,
    Benchmark,
    Judged,
    Question,
    Rule,
    read_questions,
)
from mmupt.benchmarks.judge_prompts import JUDGE_VERSION, Unreadable, read_agreement, read_answer

BENCHMARKS = {
    one.name: one
    for one in (mathvista.MATHVISTA, mathvision.MATHVISION, mathverse.MATHVERSE, wemath.WEMATH, figures.FIGURES)
}


def rule_version(source: str, rule: str) -> int:
    """The version of a rule by its name; what is neither the benchmark's own nor the project's is a judge model."""
    rules = BENCHMARKS[source].rules if source in BENCHMARKS else ()
    return {OWN_RULE: OWN_VERSION, **{one.name: one.version for one in rules}}.get(rule, JUDGE_VERSION)


__all__ = [
    "BENCHMARKS",
    "OWN_RULE",
    "Benchmark",
    "Judged",
    "Question",
    "Rule",
    "Unreadable",
    "read_agreement",
    "read_answer",
    "read_questions",
    "rule_version",
]
