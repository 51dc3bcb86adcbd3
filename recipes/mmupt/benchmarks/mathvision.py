"""MATH-Vision: an answer is right as the letter or the text of the option, or as a number to two decimals.

The rule of the authors' `evaluation/utils.py`, whose evaluation of LaTeX (latex2sympy and `eval`) is replaced by the
project's own parser: what that cannot read as a number is compared as text alone.
"""

from recipes.mmupt.benchmarks.question import Benchmark, Question
from verl_ext.answers import number_of

DECIMALS = 2
BRACKETS = {"(": ")", "[": "]"}


def is_correct(answer: str | None, question: Question) -> bool:
    """Whether the answer equals the truth, or the text of the option whose letter the truth is."""
    if answer is None:
        return False
    truths = [question.truth]
    letter = question.truth.strip().upper()
    if question.choices and len(letter) == 1 and 0 <= (index := ord(letter) - ord("A")) < len(question.choices):
        truths.append(question.choices[index])
    return any(equal(answer, truth) for truth in truths)


def equal(answer: str, truth: str) -> bool:
    """Whether two texts are the same in lower case, element by element in brackets, or the same number."""
    answer, truth = answer.lower(), truth.lower()
    if not answer.replace(" ", "") or not truth.replace(" ", ""):
        return False
    if answer.strip() == truth.strip() or elements(answer) == elements(truth):
        return True
    numbers = (number_of(answer), number_of(truth))
    return None not in numbers and rounded(answer) == rounded(truth)


def elements(text: str) -> str:
    """A tuple or list with every number in it rounded; anything else as it is."""
    if len(text) > 2 and BRACKETS.get(text[0]) == text[-1] and "," in text:
        return f"{text[0]}{','.join(rounded(part) for part in text[1:-1].split(','))}{text[-1]}"
    return text


def rounded(text: str) -> str:
    """A number to two decimals, other text without the spaces around it."""
    value = number_of(text)
    # A zero has no sign.
    return text.strip() if value is None else str(round(value, DECIMALS) + 0.0)


def strata(question: Question) -> dict[str, tuple[str, ...]]:
    """Level and subject."""
    return {"level": (str(question.metadata["level"]),), "subject": (question.metadata["subject"],)}


MATHVISION = Benchmark("mathvision", "test", "official", is_correct, strata)
