"""Filters of synthesized questions: pure functions, cheapest first, each applied to what the earlier filters kept.

A filter returns, for every candidate, the reason to drop it or None. Most need only the texts; `self_check` and
`difficulty` also take replies of the model.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mmupt.synthesis.candidates import Candidate
from mmupt_data.question_words import words
from verl_ext.answers import verdict_in
from verl_ext.control_text import control_texts
from verl_ext.counts import pluralize

Reason = str | None
Filter = Callable[..., list[Reason]]

# Text filters by name, in order of application.
FILTERS: dict[str, Filter] = {}

# fmt: off
_IMPERATIVES = frozenset((
    "calculate", "choose", "classify", "compare", "compute", "count", "describe", "determine", "estimate", "evaluate",
    "explain", "express", "factor", "find", "give", "identify", "list", "name", "prove", "select", "show", "simplify",
    "sketch", "solve", "state", "tell", "write",
))
# fmt: on
_SENTENCE_END = re.compile(r"[.!?;:,\n]+(?:\s|$)")
_TELLS = re.compile(
    r"\\(?:boxed|fbox)\b|</?answer>|\b(?:the|its|final|correct|right)\s+answer\s*(?:is|=|:)|\banswer\s*[:=]\s*\S",
    re.IGNORECASE,
)
_ASKED = re.compile(
    r"\b(?:what\s+(?:is|are|was|were)|what's|how\s+(?:long|large|tall|high|wide|big|many|much)\s+(?:is|are)"
    r"|find|calculate|compute|determine|give|state)\b"
    r"(?P<what>(?:(?!\b(?:if|when|where|given|knowing)\b)[^.?!;,\n]){1,200})",
    re.IGNORECASE,
)
_STATED = re.compile(
    r"(?P<what>[^.?!;,\n=]{1,200}?)\s*(?:\b(?:is|are|equals|measures)\b|=)\s*(?:(?:about|exactly)\s+)?"
    # A number that does not begin an expression.
    r"[-+$]{0,2}\d+(?:\.\d+)?(?![\w^\\(]|\.\d|\s*[-+*/^=])",
    re.IGNORECASE,
)
_ARTICLES = frozenset(("a", "an", "the"))


def of_texts(function: Filter) -> Filter:
    """Register a filter that compares candidates with each other, under the name of its function."""
    FILTERS[function.__name__] = function
    return function


def of_text(function: Callable[..., Reason]) -> Callable[..., Reason]:
    """Register a filter of single candidates under the name of its function."""

    def of_all(candidates: Sequence[Candidate], **thresholds: Any) -> list[Reason]:
        return [function(candidate, **thresholds) for candidate in candidates]

    FILTERS[function.__name__] = of_all
    return function


@of_text
def unparsable(candidate: Candidate) -> Reason:
    """Drop responses without a question."""
    return "no question in the response" if not candidate.question else None


@of_text
def control_text(candidate: Candidate) -> Reason:
    """Drop questions with control text of a trainer or tokenizer, such as <video> or <|im_end|>."""
    found = control_texts(candidate.question or "")
    return f"it has {', '.join(map(repr, found))}" if found else None


@of_text
def not_a_question(candidate: Candidate) -> Reason:
    """Drop texts with neither a question mark nor a sentence that begins with an imperative ("Find x.")."""
    text = candidate.question or ""
    if "?" in text or "？" in text:
        return None
    beginnings = {part.split()[0].strip("*\"'(").lower() for part in _SENTENCE_END.split(text) if part.split()}
    return None if beginnings & _IMPERATIVES else "neither a question mark nor a task"


@of_text
def length(candidate: Candidate, min_words: int, max_words: int, max_characters: int) -> Reason:
    """Drop questions that are too short or too long."""
    text = candidate.question or ""
    count = len(text.split())
    if not min_words <= count <= max_words:
        return pluralize(count, "word")
    return f"{len(text)} characters" if len(text) > max_characters else None


@of_text
def language(candidate: Candidate, script: str, max_other_share: float) -> Reason:
    """Drop questions with too many letters of other scripts; `script` is the first word of Unicode names (LATIN)."""
    letters = [sign for sign in candidate.question or "" if sign.isalpha()]
    if not letters:
        return "no letters"
    other = sum(not unicodedata.name(sign, "").startswith(f"{script} ") for sign in letters) / len(letters)
    return f"{100 * other:.0f} % of the letters are not {script}" if other > max_other_share else None


@of_text
def tells_its_answer(candidate: Candidate) -> Reason:
    """Drop questions that contain a box, mention their answer, or give a number for the quantity they ask for."""
    text = candidate.question or ""
    if told := _TELLS.search(text):
        return f"it has {told[0].strip()!r}"
    stated = [_bare(statement["what"]) for statement in _STATED.finditer(text)]
    for question in _ASKED.finditer(text):
        asked = _bare(question["what"])
        if asked and any(one[-len(asked) :] == asked for one in stated):
            return f"it gives a number for {' '.join(asked)!r} and asks for it"
    return None


@of_text
def copy_of_parent(candidate: Candidate, ngram: int, min_similarity: float) -> Reason:
    """Drop questions similar to the question of their row."""
    if candidate.parent_question is None:
        return None
    found = similarity(candidate.question or "", candidate.parent_question, ngram)
    return f"similarity {found:.2f} to the question of its row" if found >= min_similarity else None


@of_texts
def copy_of_other(candidates: Sequence[Candidate], ngram: int, min_similarity: float) -> list[Reason]:
    """Drop questions similar to an earlier question about the same image."""
    kept: dict[str, list[Candidate]] = defaultdict(list)
    reasons: list[Reason] = []
    for candidate in candidates:
        of_image = kept[candidate.image]
        for other in of_image:
            if (found := similarity(candidate.question or "", other.question or "", ngram)) >= min_similarity:
                reasons.append(f"similarity {found:.2f} to {other.id}")
                break
        else:
            of_image.append(candidate)
            reasons.append(None)
    return reasons


def names() -> tuple[str, ...]:
    """Names of all filters in order of application; those that need the model come last."""
    return (*FILTERS, self_check.__name__, difficulty.__name__)


def self_check(candidates: Sequence[Candidate], replies: Mapping[str, str]) -> list[Reason]:
    """Drop questions that the model does not affirm to be answerable from the image.

    `replies` maps candidate ids to replies, whose last line begins or ends with yes or no.
    """
    reasons: dict[str | None, Reason] = {"yes": None, "no": "the model says no", None: "the model says neither"}
    return [reasons[verdict_in(replies[candidate.id])] for candidate in candidates]


def difficulty(candidates: Sequence[Candidate], shares: Mapping[str, float], low: float, high: float) -> list[Reason]:
    """Drop questions on which too few or too many quick responses agree for a vote to teach anything.

    `shares` maps candidate ids to majority ratios; ratios from `low` to `high` are kept.
    """
    return [
        None if low <= shares[one.id] <= high else f"vote share {shares[one.id]:.2f}, {_side(shares[one.id], low)}"
        for one in candidates
    ]


def similarity(a: str, b: str, ngram: int) -> float:
    """Jaccard index of the word n-grams of two texts; 1.0 for equal words.

    Case, spacing and punctuation are ignored. A text with fewer than `ngram` words is a single n-gram.

    >>> similarity("What is the area of ABC?", "what is  the area of abc", 3)
    1.0
    """
    first, second = words(a), words(b)
    if first == second:
        return 1.0
    runs, others = _runs(first, ngram), _runs(second, ngram)
    return len(runs & others) / len(runs | others)


def _runs(of: Sequence[str], ngram: int) -> set[tuple[str, ...]]:
    return {tuple(of[start : start + ngram]) for start in range(max(1, len(of) - ngram + 1))}


def _bare(text: str) -> tuple[str, ...]:
    return tuple(word for word in words(text) if word not in _ARTICLES)


def _side(share: float, low: float) -> str:
    return "hopeless" if share < low else "too easy"
