r"""Extract answers from responses and compare them.

By default, a response's answer is the content of its last `\boxed{...}`, or None without one. `verl_ext.votes` counts
and rewards answers, and `verl_ext.scores` measures their accuracy.
"""

from verl_ext.answers.answer_keys import Key, number_of
from verl_ext.answers.choice_keys import canonical
from verl_ext.answers.equality import AnswerClasses, AnswerRule, Comparison, classify, correct, equivalent
from verl_ext.answers.extraction import Extraction, extract_answer, verdict_in

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
    "verdict_in",
]
