"""When answers are the same: two of them, a whole group, and one against the truth.

Keys decide nearly all (`verl_ext.answers.answer_keys`). Where two keys differ and could still be equal, as those of
trigonometric identities, or where a rule of others is asked for, a child process compares them within limits of time
and memory (`verl_ext.answers.sandbox`). What is not decided there counts as different.
"""

import importlib.util
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, get_args

from verl_ext.answers.algebra import Sum
from verl_ext.answers.answer_keys import Key, canonical, is_empty
from verl_ext.answers.group_context import join
from verl_ext.answers.numeric_check import differ
from verl_ext.answers.sandbox import Isolated, warm_up
from verl_ext.answers.structures import Value

AnswerRule = Literal["canonical", "mathruler", "math_verify"]
# What is called in the child process.
_FUNCTIONS: Mapping[AnswerRule, str] = {
    "canonical": "verl_ext.answers.sympy_equality:equal",
    "mathruler": "mathruler.grader:grade_answer",
    "math_verify": "verl_ext.answers.math_verify_equality:equal",
}


@dataclass(frozen=True)
class Comparison:
    """How answers are compared; ValueError for what is no rule or no limit.

    rule: who says what is equal. "canonical": the rule of this project, see docs/answers.md. "mathruler": its
        `grade_answer`, the grader of the paper's code; "math_verify": `verify` of Math-Verify. Both of them compare the
        texts of two answers, in the order of the alphabet, as they are not symmetric.
    seconds_per_pair: wall clock time that one comparison in the child process may take.
    seconds_per_group: the same for all comparisons of a group.
    """

    rule: AnswerRule = "canonical"
    seconds_per_pair: float = 0.25
    seconds_per_group: float = 0.75

    def __post_init__(self) -> None:
        if self.rule not in get_args(AnswerRule):
            raise ValueError(f"rule={self.rule!r} is none of {', '.join(get_args(AnswerRule))}")
        if self.rule != "canonical" and importlib.util.find_spec(self.rule) is None:
            raise ValueError(f"rule={self.rule!r} needs that package: pip install 'verl-mmupt[math_verify]'")
        for name in ("seconds_per_pair", "seconds_per_group"):
            value = getattr(self, name)
            if type(value) not in (int, float) or not value > 0:
                raise ValueError(f"{name}={value!r} must be a positive number of seconds")


@dataclass(frozen=True)
class AnswerClasses:
    """The classes of equal answers in a group, the largest first, those of one size in the order of their keys.

    members: positions of the answers of each class. answers: of each class the answer that stands for it, one with a
    unit where there is one, of those the most frequent; it does not depend on the order of the answers. undecided:
    number of pairs of keys that were not compared within the limits, and count as different.
    """

    members: tuple[tuple[int, ...], ...]
    answers: tuple[str, ...]
    undecided: int


DEFAULT = Comparison()


def prepare(comparison: Comparison) -> None:
    """Start the process that compares, which takes a second, now instead of in the first comparison that needs it."""
    warm_up(_FUNCTIONS[comparison.rule])


def classify(
    answers: Sequence[str | None], comparison: Comparison = DEFAULT, choices: Sequence[str] | None = None
) -> AnswerClasses:
    """Divide the answers of a group into classes of equal ones; None is no answer and in no class.

    The classes are the connected components of the keys under equality: what is compared, and in which order, depends
    on the sorted keys alone. A number without a unit is one with it, unless it has two units in the group; see
    `verl_ext.answers.group_context`. `choices` are the texts of the options of the question, see `canonical`. An empty
    answer is none.
    """
    counts = Counter(answer for answer in answers if answer is not None)
    keys = {answer: _key(answer, comparison.rule, choices) for answer in counts if not is_empty(answer)}
    spellings: dict[Key, list[str]] = defaultdict(list)
    # Answers of one key may differ in what else they say. What counts is that 5 m has a unit, where 5m may be a
    # product, and that somebody gave 4π alone, not as 4π ≈ 12.57.
    for answer, key in sorted(keys.items(), key=lambda one: (-len(one[1].details), str(one[1].instead or ""))):
        spellings[key].append(answer)
    components, undecided = _components(spellings, comparison)
    positions: dict[str, list[int]] = defaultdict(list)
    for position, given in enumerate(answers):
        if given is not None:
            positions[given].append(position)
    classes = []
    for component in components:
        spelled = {answer: counts[answer] for key in component for answer in spellings[key]}
        members = sorted(position for answer in spelled for position in positions[answer])
        classes.append((-len(members), component[0], members, _representative(spelled, keys)))
    classes.sort()
    return AnswerClasses(
        members=tuple(tuple(members) for _, _, members, _ in classes),
        answers=tuple(answer for _, _, _, answer in classes),
        undecided=undecided,
    )


def equivalent(
    a: str | None, b: str | None, comparison: Comparison = DEFAULT, choices: Sequence[str] | None = None
) -> bool:
    """Whether both are answers and the same one, with no truth in sight: None does not even equal None.

    Nothing is left away: a number with a unit is not the number alone. What cannot be decided in time is different.
    """
    if a is None or b is None or is_empty(a) or is_empty(b):
        return False
    first, second = sorted(_key(text, comparison.rule, choices) for text in (a, b))
    if first == second:
        return True
    with _Comparer(comparison) as compare:
        return bool(compare(first, second))


def correct(
    answer: str | None, truth: str | None, comparison: Comparison = DEFAULT, choices: Sequence[str] | None = None
) -> bool:
    """Whether an answer is the true one. None is never right, and nothing is where the truth is not known.

    They are compared as a group of these two: what one of them leaves away, as a unit, is what the other one says.
    """
    if answer is None or truth is None or is_empty(answer) or is_empty(truth):
        return False
    given, true = (_key(text, comparison.rule, choices) for text in (answer, truth))
    if given == true:
        return True
    if comparison.rule == "canonical":
        components, _ = _components([given, true], comparison)
        return len(components) == 1
    with _Comparer(comparison) as compare:
        return bool(compare(given, true))


def _key(answer: str, rule: AnswerRule, choices: Sequence[str] | None) -> Key:
    return canonical(answer, choices) if rule == "canonical" else Key(answer.strip())


def _representative(counts: Mapping[str, int], keys: Mapping[str, Key]) -> str:
    # A letter with its text is right by both.
    chosen = [answer for answer in counts if dict(keys[answer].details).get("option")]
    detailed = chosen or [answer for answer in counts if keys[answer].details] or counts
    return min(detailed, key=lambda answer: (-counts[answer], len(answer), answer))


def _components(keys: Collection[Key], comparison: Comparison) -> tuple[list[list[Key]], int]:
    """Return the classes of the keys of a group, sorted, and the number of pairs not decided.

    Classes of the context are the nodes, and the connected components of those that are equal are the classes.
    """
    classes = sorted(join(keys))
    one_unit = len({detail for key in keys for kind, detail in key.details if kind == "unit"}) < 2
    nodes = [
        members[0].bare if one_unit and all(kind == "unit" for kind, _ in members[0].details) else members[0]
        for members in classes
    ]
    component = {position: [position] for position in range(len(classes))}
    undecided = 0
    with _Comparer(comparison) as compare:
        for a, b in combinations(range(len(classes)), 2):
            if component[a] is component[b]:
                continue
            equal = compare(nodes[a], nodes[b])
            undecided += equal is None
            if equal:
                merged = component[a] + component[b]
                component.update(dict.fromkeys(merged, merged))
    return [
        sorted(key for position in joined for key in classes[position])
        for first, joined in component.items()
        if first == min(joined)
    ], undecided


class _Comparer:
    """Compares the different keys of one group, in one child process if any, until the time of the group is used up."""

    def __init__(self, comparison: Comparison) -> None:
        self._comparison = comparison
        self._isolated: Isolated | None = None
        self._seconds_left = comparison.seconds_per_group

    def __enter__(self) -> "_Comparer":
        return self

    def __exit__(self, *error: object) -> None:
        if self._isolated is not None:
            self._isolated.close()

    def __call__(self, a: Key, b: Key) -> bool | None:
        """Whether two keys that differ are equal all the same; None where that cannot be decided in time."""
        if self._comparison.rule == "canonical":
            if a.value is None or b.value is None or not could_be_equal(a.value, b.value):
                return False
            return self._compare(a.value, b.value)
        return self._compare(a.text, b.text)

    def _compare(self, a: object, b: object) -> bool | None:
        if self._seconds_left <= 0:
            return None
        if self._isolated is None:
            self._isolated = Isolated(_FUNCTIONS[self._comparison.rule], self._comparison.seconds_per_pair)
        start = time.monotonic()
        equal = self._isolated(a, b)
        self._seconds_left -= time.monotonic() - start
        return equal


def could_be_equal(a: Value, b: Value) -> bool:
    """Whether values with different normal forms may be equal all the same: a bounded look, without a child process."""
    if isinstance(a, Sum) and isinstance(b, Sum):
        return not (a.is_settled and b.is_settled) and not differ(a, b)
    if isinstance(a, Sum) or isinstance(b, Sum) or a.kind != b.kind or len(a.parts) != len(b.parts):
        return False
    if a.kind.startswith("relation"):
        return not all(isinstance(part, Sum) and part.is_settled for part in (*a.parts, *b.parts))
    if a.is_ordered:
        return all(_may_match(part, other) for part, other in zip(a.parts, b.parts, strict=True))
    return all(any(_may_match(part, other) for other in b.parts) for part in a.parts)


def _may_match(a: Value, b: Value) -> bool:
    return a.text == b.text or could_be_equal(a, b)
