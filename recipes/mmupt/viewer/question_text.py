"""Questions and answers as plain text and as HTML with escaped text and rendered formulas."""

from collections.abc import Iterable

from mmupt.reports.html_page import shown, shown_answer, shown_question
from verl_ext.control_text import PLACEHOLDER


def plain_question(text: str) -> str:
    """Return a question on one line without image placeholders, for display and search in a list."""
    return " ".join(text.replace(PLACEHOLDER, " ").split())


def question_html(text: str, choices: Iterable[str] | None) -> str:
    """Return a question with its answer options as HTML."""
    options = "".join(f"<li>{shown(choice)}</li>" for choice in choices or ())
    return f"{shown_question(text)}{f'<ul>{options}</ul>' if options else ''}"


def answer_html(answer: str | None) -> str | None:
    """Return an answer as HTML; None stays None."""
    return None if answer is None else shown_answer(answer)
