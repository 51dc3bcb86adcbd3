r"""Answers: what a response answers, and when two answers are the same.

A response is the text that the policy wrote; its answer is what stands in its last `\boxed{...}`, or None. Who votes
with answers and what is rewarded is the business of `verl_ext.votes`; how right answers are, of `verl_ext.scores`.
"""

from verl_ext.answers.answer_keys import Key, canonical, number_of
from verl_ext.answers.equality import AnswerClasses, AnswerRule, Comparison, classify, correct, equivalent
from verl_ext.answers.extraction import Extraction, extract_answer

__all__ = [
    "AnswerClasses",
    "AnswerRule",
    "Comparison",
    "Extraction",
    "Key",
    "canonical",
    "classify",
    "correct",
    "equivalent",
    "extract_answer",
    "number_of",
]
