"""Parts of the official prompts and rules of several benchmarks: image placeholders, the bare question, numbers.

The module of each benchmark has its prompt and names the source.
"""

from mmupt.benchmarks.benchmark import Question
from mmupt_data.hub import with_choices
from mmupt_data.row_schema import PLACEHOLDER


def with_images(text: str, question: Question) -> str:
    """An official text with the image placeholders of the question, in front if it has none.

    Raises:
        ValueError: the text has placeholders, but not as many as the question.
    """
    count = question.text.count(PLACEHOLDER)
    found = text.count(PLACEHOLDER)
    if found not in (0, count):
        raise ValueError(f"{question.id}: {found} {PLACEHOLDER} in the official prompt, {count} in the question")
    return text if found else PLACEHOLDER * count + text


def is_number(text: str) -> bool:
    """Whether Python reads a text as a number, as the authors' rules ask."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def bare_question(question: Question) -> str:
    """The question in the benchmark's own words, without image placeholders and the options after it."""
    return question.text.replace(PLACEHOLDER, "").removesuffix(with_choices("", question.choices))
