"""MATH-Vision: an answer is right as the letter or the text of the option, or as a number to two decimals.

The rule of the authors' `evaluation/utils.py`, whose evaluation of LaTeX (latex2sympy and `eval`) is replaced by the
project's own parser: what that cannot read as a number is compared as text alone. The prompt is that of their
`models/Qwen-VL.py`, and `extract` follows `evaluation/evaluate.py`, which asks no judge.
"""

import re

from recipes.mmupt.benchmarks.official import asked, listed, with_images
from recipes.mmupt.benchmarks.question import Benchmark, Question
from verl_ext.answers import extract_answer, number_of

DECIMALS = 2
BRACKETS = {"(": ")", "[": "]"}
PROMPT = (
    'Please solve the problem step by step and put your answer in one "\\boxed{}". If it is a multiple choice '
    'question, only one letter is allowed in the "\\boxed{}".\n'
)
# Options that only name what is drawn are not listed.
DRAWN = ("A", "B", "C", "D", "E")
# " B." or " (B)." at the end, or "B" or "(B)" as the first line.
LETTER = re.compile(r" (?:([A-E])|\(([A-E])\))\.$|^(?:([A-E])|\(([A-E])\)(?: \4)?)\n")
STATED = re.compile(r"[Tt]he (?:final answer is|answer is|correct answer is|answer should be)")
WRAPPED = re.compile(r"\\(?:text|mbox)\s*\{([^{}]*)\}")
NOISE = re.compile(r"\\left(?![a-z])|\\right(?![a-z])|\\,|\\!|\$|\\?%|\^\{?\\circ\}?|\n")
ONE_LETTER = re.compile(r"[({]?([A-Ea-e])[)}]?\.?")


def is_correct(answer: str | None, question: Question) -> bool:
    """Whether the cleaned answer equals the truth, or the text of the option whose letter the truth is."""
    answer = None if answer is None else cleaned(answer)
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


def official_prompt(question: Question) -> str:
    """What to do, the question and its options with their tags, which are drawn into the image in front."""
    options = "" if question.choices in (None, DRAWN) else "".join(f"{option}\n" for option in listed(question))
    return with_images(f"{PROMPT}{asked(question)}\n{options}", question)


def extract(response: str, question: Question) -> str | None:
    """The cleaned box; else a letter or a number at the end, what follows "the answer is", or all of the response."""
    if boxed := extract_answer(response):
        return cleaned(boxed)
    text = response.strip()
    if found := LETTER.search(text):
        return next(filter(None, found.groups()))
    last = text.split("is ")[-1].rstrip(".")
    try:
        float(last)
    except ValueError:
        parts = STATED.split(text)
        # Only a statement ends with its sentence.
        last = parts[-1].strip().split("\n")[0].split(". ")[0] if len(parts) > 1 else text
    return cleaned(last)


def cleaned(answer: str) -> str | None:
    """An answer as the authors compare it: what follows "=", without units of angle, dollars and LaTeX's wrappings."""
    answer = WRAPPED.sub(r"\1", answer).split("=")[-1].split("\\approx")[-1]
    answer = NOISE.sub("", answer).strip().rstrip(".").lstrip(":").strip()
    if letter := ONE_LETTER.fullmatch(answer):
        return letter[1].upper()
    return answer or None


def strata(question: Question) -> dict[str, tuple[str, ...]]:
    """Level and subject."""
    return {"level": (str(question.metadata["level"]),), "subject": (question.metadata["subject"],)}


MATHVISION = Benchmark("mathvision", "test", "official", is_correct, strata, None, official_prompt, extract)
