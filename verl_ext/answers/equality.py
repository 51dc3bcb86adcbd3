"""Equality of answers: of two answers, within a group, and against the ground truth.

Keys decide nearly all cases (`verl_ext.answers.answer_keys`), and a numeric test decides the rest
(`verl_ext.answers.numeric_equality`). `verl_ext.answers.foreign_rules` wraps the graders of other projects.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from verl_ext.answers.answer_keys import Key, is_empty
from verl_ext.answers.choice_keys import canonical
from verl_ext.answers.foreign_rules import foreign_classes, foreign_equal, require_package
from verl_ext.answers.group_context import join
from verl_ext.answers.numeric_equality import equality_classes

AnswerRule = Literal["canonical", "mathruler", "math_verify"]


@dataclass(frozen=True)
class Comparison:
    """The rule that compares answers.

    rule: "canonical": this project's rule, see docs/answers.md. "mathruler": `grade_answer` of mathruler, the grader of
        the paper's code. "math_verify": `verify` of Math-Verify.

    Raises:
        ValueError: an unknown rule, or a rule whose package is not installed.
    """

    rule: AnswerRule = "canonical"

    def __post_init__(self) -> None:
        if self.rule not in get_args(AnswerRule):
            raise ValueError(f"rule={self.rule!r} is none of {', '.join(get_args(AnswerRule))}")
        if self.rule != "canonical":
            require_package(self.rule)


@dataclass(frozen=True)
class AnswerClasses:
    """The classes of equal answers in a group, largest first; classes of equal size are ordered by key.

    members: positions of each class's answers in the group.
    answers: each class's representative: the most frequent answer with a unit or another detail, or the most frequent
        answer if none has a detail. It does not depend on the order of the answers.
    """

    members: tuple[tuple[int, ...], ...]
    answers: tuple[str, ...]


DEFAULT = Comparison()


def classify(
    answers: Sequence[str | None], comparison: Comparison = DEFAULT, choices: Sequence[str] | None = None
) -> AnswerClasses:
    """Divide the answers of a group into classes of equal answers. None and empty answers are in no class.

    The classes depend only on the set of answers, not on their order. A number without a unit equals the same number
    with a unit, unless the group gives it two units; see `verl_ext.answers.group_context`. `choices` are the texts of
    the question's options, see `canonical`.
    """
    counts = Counter(answer for answer in answers if answer is not None and not is_empty(answer))
    if comparison.rule == "canonical":
        keys = {answer: canonical(answer, choices) for answer in counts}
    else:
        keys = {answer: Key(answer.strip()) for answer in counts}
    spellings: dict[Key, list[str]] = defaultdict(list)
    # Answers with the same key may differ in details and second readings. Prefer keys with details (5 m has a unit, 5m
    # may be a product), then keys without a second reading (4π over 4π ≈ 12.57).
    for answer, key in sorted(keys.items(), key=lambda item: (-len(item[1].details), str(item[1].instead or ""))):
        spellings[key].append(answer)
    positions: dict[str, list[int]] = defaultdict(list)
    for position, answer_given in enumerate(answers):
        if answer_given is not None:
            positions[answer_given].append(position)
    classes = []
    for equal_keys in _classes_of_keys(spellings, comparison.rule):
        spelled = {answer: counts[answer] for key in equal_keys for answer in spellings[key]}
        members = sorted(position for answer in spelled for position in positions[answer])
        classes.append((-len(members), equal_keys[0], members, _representative(spelled, keys)))
    classes.sort()
    return AnswerClasses(
        members=tuple(tuple(members) for _, _, members, _ in classes),
        answers=tuple(answer for _, _, _, answer in classes),
    )


def equivalent(
    a: str | None, b: str | None, comparison: Comparison = DEFAULT, choices: Sequence[str] | None = None
) -> bool:
    """Whether two answers are equal; None equals nothing, not even None.

    Without a ground truth or a group, details are not filled in: 12 cm does not equal 12.
    """
    if a is None or b is None or is_empty(a) or is_empty(b):
        return False
    if comparison.rule != "canonical":
        return foreign_equal(comparison.rule, *sorted((a.strip(), b.strip())))
    first, second = canonical(a, choices), canonical(b, choices)
    return first == second or len(equality_classes([first.value, second.value])) == 1


def correct(
    answer: str | None, truth: str | None, comparison: Comparison = DEFAULT, choices: Sequence[str] | None = None
) -> bool:
    """Whether an answer equals the ground truth; False if either is None.

    The two are compared as a group: if one leaves out a detail, such as a unit, it takes the other's.
    """
    if answer is None or truth is None or is_empty(answer) or is_empty(truth):
        return False
    if comparison.rule != "canonical":
        return foreign_equal(comparison.rule, answer.strip(), truth.strip())
    return len(_classes_of_keys({canonical(answer, choices), canonical(truth, choices)}, comparison.rule)) == 1


def _representative(counts: Mapping[str, int], keys: Mapping[str, Key]) -> str:
    # The letter with its text, as in B. 15 cm, matches a ground truth of either form.
    chosen = [answer for answer in counts if dict(keys[answer].details).get("option")]
    detailed = chosen or [answer for answer in counts if keys[answer].details] or counts
    return min(detailed, key=lambda answer: (-counts[answer], len(answer), answer))


def _classes_of_keys(keys: Collection[Key], rule: AnswerRule) -> list[list[Key]]:
    """Return the classes of the keys of a group, each sorted."""
    if rule != "canonical":
        return [list(map(Key, texts)) for texts in foreign_classes(rule, [key.text for key in keys])]
    classes = sorted(join(keys))
    one_unit = len({detail for key in keys for kind, detail in key.details if kind == "unit"}) < 2
    values = [
        (members[0].bare if one_unit and all(kind == "unit" for kind, _ in members[0].details) else members[0]).value
        for members in classes
    ]
    return [
        sorted(key for position in positions for key in classes[position]) for positions in equality_classes(values)
    ]
