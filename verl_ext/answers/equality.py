"""When answers are equal: two of them, a whole group, or one and the ground truth.

Keys decide nearly all (`verl_ext.answers.answer_keys`), and values at fixed points the rest
(`verl_ext.answers.numeric_equality`). Graders of other projects are in `verl_ext.answers.foreign_rules`.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from verl_ext.answers.answer_keys import Key, canonical, is_empty
from verl_ext.answers.foreign_rules import foreign_classes, foreign_equal, require_package
from verl_ext.answers.group_context import join
from verl_ext.answers.numeric_equality import equality_classes

AnswerRule = Literal["canonical", "mathruler", "math_verify"]


@dataclass(frozen=True)
class Comparison:
    """How answers are compared; ValueError for a rule that does not exist or whose package is missing.

    rule: "canonical": the rule of this project, see docs/answers.md. "mathruler": its `grade_answer`, the grader of the
        paper's code; "math_verify": `verify` of Math-Verify.
    """

    rule: AnswerRule = "canonical"

    def __post_init__(self) -> None:
        if self.rule not in get_args(AnswerRule):
            raise ValueError(f"rule={self.rule!r} is none of {', '.join(get_args(AnswerRule))}")
        if self.rule != "canonical":
            require_package(self.rule)


@dataclass(frozen=True)
class AnswerClasses:
    """The classes of equal answers in a group, the largest first, classes of equal size ordered by key.

    members: positions of the answers of each class. answers: the representative of each class: the most frequent of its
        answers with a unit, or of all if none has one. It does not depend on the order of the answers.
    """

    members: tuple[tuple[int, ...], ...]
    answers: tuple[str, ...]


DEFAULT = Comparison()


def classify(
    answers: Sequence[str | None], comparison: Comparison = DEFAULT, choices: Sequence[str] | None = None
) -> AnswerClasses:
    """Divide the answers of a group into classes of equal answers; None is no answer and in no class.

    The classes depend on the set of the answers alone, not on their order. A number without a unit is equal to the same
    number with a unit, unless the group has two units for it; see `verl_ext.answers.group_context`. `choices` are the
    texts of the options of the question, see `canonical`. An empty answer is no answer.
    """
    counts = Counter(answer for answer in answers if answer is not None and not is_empty(answer))
    if comparison.rule == "canonical":
        keys = {answer: canonical(answer, choices) for answer in counts}
    else:
        keys = {answer: Key(answer.strip()) for answer in counts}
    spellings: dict[Key, list[str]] = defaultdict(list)
    # Answers with one key may differ in details and second readings. One with details counts first (5 m has a unit, 5m
    # may be a product), then one without a second reading (4π, not 4π ≈ 12.57).
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
    """Whether two answers are equal, without a ground truth; None equals nothing, not even None.

    No detail may be left out: a number with a unit is not the number alone.
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

    They are compared as a group of two: a detail that one of them leaves out, such as a unit, is taken from the other.
    """
    if answer is None or truth is None or is_empty(answer) or is_empty(truth):
        return False
    if comparison.rule != "canonical":
        return foreign_equal(comparison.rule, answer.strip(), truth.strip())
    return len(_classes_of_keys({canonical(answer, choices), canonical(truth, choices)}, comparison.rule)) == 1


def _representative(counts: Mapping[str, int], keys: Mapping[str, Key]) -> str:
    # An option's letter with its text is right by both.
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
