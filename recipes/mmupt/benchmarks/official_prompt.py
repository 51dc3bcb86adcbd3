"""What the official prompts of several benchmarks share: their images, the question and its options.

Which benchmark asks what, and whose source says so, is in its own module.
"""

from string import ascii_uppercase

from mmupt.benchmarks.benchmark_question import Question

PLACEHOLDER = "<image>"


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


def asked(question: Question) -> str:
    """The question in the benchmark's own words: without placeholders, and without the options that follow it."""
    options = "\n".join(listed(question))
    return question.text.replace(PLACEHOLDER, "").removesuffix(f"\nChoices:\n{options}")


def listed(question: Question) -> list[str]:
    """The options as "(A) text", which is how MathVista, MATH-Vision and this project list them."""
    return [f"({letter}) {choice}" for letter, choice in zip(ascii_uppercase, question.choices or (), strict=False)]
