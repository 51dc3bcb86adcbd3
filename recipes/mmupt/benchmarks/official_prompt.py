"""Helpers that several official prompts and rules share: image placeholders, the bare question, numbers.

The module of each benchmark has its prompt and cites the source.
"""

from mmupt.benchmarks.benchmark import Question
from mmupt_data.hub import with_choices
from mmupt_data.row_schema import PLACEHOLDER


def with_images(text: str, question: Question) -> str:
    """Put the image placeholders of the question in front of an official text unless the text has them.

    Raises:
        ValueError: the text has placeholders, but another number of them than the question.
    """
    count = question.text.count(PLACEHOLDER)
    found = text.count(PLACEHOLDER)
    if found not in (0, count):
        raise ValueError(f"{question.id}: {found} {PLACEHOLDER} in the official prompt, {count} in the question")
    return text if found else PLACEHOLDER * count + text


def is_number(text: str) -> bool:
    """Whether `float` accepts a text, which is the authors' test for a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def bare_question(question: Question) -> str:
    """The question without image placeholders and options."""
    return question.text.replace(PLACEHOLDER, "").removesuffix(with_choices("", question.choices))
