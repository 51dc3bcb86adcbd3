"""When two answers are the same: pairs, whole groups, and against a truth."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

AnswerRule = Literal["canonical", "mathruler", "math_verify"]


@dataclass(frozen=True)
class Comparison:
    """How answers are compared."""

    rule: AnswerRule = "canonical"
    seconds_per_pair: float = 0.25
    seconds_per_group: float = 0.75


@dataclass(frozen=True)
class AnswerClasses:
    """The classes of equal answers in a group."""

    members: tuple[tuple[int, ...], ...]
    answers: tuple[str, ...]
    undecided: int


def canonical(answer: str, choices: Sequence[str] | None = None) -> str:
    """Stub."""
    return answer.strip()


def equivalent(a: str | None, b: str | None, choices: Sequence[str] | None = None) -> bool:
    """Stub."""
    return a is not None and b is not None and canonical(a) == canonical(b)


def correct(
    answer: str | None,
    truth: str | None,
    comparison: Comparison = Comparison(),  # noqa: B008
    choices: Sequence[str] | None = None,
) -> bool:
    """Stub."""
    return equivalent(answer, truth)


def classify(
    answers: Sequence[str | None],
    comparison: Comparison = Comparison(),  # noqa: B008
    choices: Sequence[str] | None = None,
) -> AnswerClasses:
    """Stub."""
    members: dict[str, list[int]] = defaultdict(list)
    for position, answer in enumerate(answers):
        if answer is not None:
            members[canonical(answer)].append(position)
    ranked = sorted(members.items(), key=lambda item: (-len(item[1]), item[0]))
    return AnswerClasses(tuple(tuple(m) for _, m in ranked), tuple(k for k, _ in ranked), 0)
