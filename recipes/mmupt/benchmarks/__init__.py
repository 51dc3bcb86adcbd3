"""Benchmarks: one module each, with its data, prompt, scoring rules and breakdowns.

A new benchmark is a module here that registers it; see docs/extending.md.
"""

from mmupt.benchmarks.benchmark import (
    BENCHMARKS,
    OWN_RULE,
    OWN_VERSION,
    Benchmark,
    JudgeSteps,
    Question,
    Rule,
    read_questions,
    rule_version,
)
from mmupt.benchmarks.judge_prompts import Unreadable, read_agreement, read_answer

__all__ = [
    "BENCHMARKS",
    "OWN_RULE",
    "OWN_VERSION",
    "Benchmark",
    "JudgeSteps",
    "Question",
    "Rule",
    "Unreadable",
    "read_agreement",
    "read_answer",
    "read_questions",
    "rule_version",
]
