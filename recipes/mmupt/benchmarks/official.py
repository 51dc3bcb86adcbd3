r"""What the official prompts of several benchmarks share: where their texts stand, and where responses to them answer.

Which benchmark asks what, and whose source says so, is in its own module. A box always wins: it says where the answer
is, and the rules here only guess that in place of the authors' judge model.
"""

import re
from string import ascii_uppercase

from recipes.mmupt.benchmarks.question import Question
from verl_ext.answers import extract_answer

PLACEHOLDER = "<image>"
# "(B)", a letter at the very end ("so B.", "**B**"), and one in front of its text ("B: 45 degrees", "B. 45").
_BRACKETED = re.compile(r"\(([A-Za-z])\)")
_LAST = re.compile(r"(?<![A-Za-z])([A-Z])[\s.*$)\]]*$")
_LEADING = re.compile(r"[\s*$(]*([A-Z])(?![A-Za-z])")
# "1,000" is one number; a full stop that ends a sentence is no part of one.
_NUMBER = re.compile(r"(?<![\w.])-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?![\w])|(?<![\w.])-?\.\d+")


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


def letter_of(response: str, count: int) -> str | None:
    """The option, one of `count`, that a response without a box takes.

    After "the answer is", the letter in brackets or in front; otherwise the last letter in brackets, or the one with
    which the response ends. None where there is no such letter, or no option of it.
    """
    letters = ascii_uppercase[:count]
    if stated := extract_answer(response, "answer_is"):
        found = _BRACKETED.search(stated) or _LEADING.match(stated)
        return found[1].upper() if found and found[1].upper() in letters else None
    bracketed = [letter.upper() for letter in _BRACKETED.findall(response) if letter.upper() in letters]
    if last := _LAST.search(response):
        return last[1] if last[1] in letters else None
    return bracketed[-1] if bracketed else None


def number_in(text: str) -> str | None:
    """The last number of a text, without the commas between its thousands."""
    found = _NUMBER.findall(text)
    return found[-1].replace(",", "") if found else None
