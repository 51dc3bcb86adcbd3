"""What the official prompts of several benchmarks share: their images, the question and its options.

Which benchmark asks what, and whose source says so, is in its own module.
"""

from mmupt.benchmarks.benchmark import Question
from mmupt_data.hub import with_choices
from mmupt_data.row_schema import PLACEHOLDER


def with_images(text: str, question: Question) -> str:
    """An official text with the placeholders of the question, in front where it has none.

    Raises:
        ValueError: the text has some, but not as many as the question.
    """
    count = question.text.count(PLACEHOLDER)
    found = text.count(PLACEHOLDER)
    if found not in (0, count):
        raise ValueError(f"{question.id}: {found} {PLACEHOLDER} in the official prompt, {count} in the question")
    return text if found else PLACEHOLDER * count + text


def bare_question(question: Question) -> str:
    """The question in the benchmark's own words: without placeholders, and without the options that follow it."""
    return question.text.replace(PLACEHOLDER, "").removesuffix(with_choices("", question.choices))
