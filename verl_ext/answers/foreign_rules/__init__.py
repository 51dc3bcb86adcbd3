"""Equality by graders of other projects: mathruler, the grader of the paper's code, and Math-Verify.

Both evaluate the text of an answer in Python and may hang. Each comparison therefore runs in a child process with
limits on time and memory (`sandbox`), which no other part of this project uses. An undecided pair counts as different
and logs a warning.
"""

import importlib.util
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal

from verl_ext.answers.components import connected_components
from verl_ext.answers.foreign_rules.sandbox import Sandbox

ForeignRule = Literal["mathruler", "math_verify"]

# Wall-clock limits, in seconds.
SECONDS_PER_PAIR = 0.25
SECONDS_PER_GROUP = 0.75

# Functions to call in the child process.
_FUNCTIONS: Mapping[ForeignRule, str] = {
    "mathruler": "mathruler.grader:grade_answer",
    "math_verify": "verl_ext.answers.foreign_rules.math_verify_rule:equal",
}
_logger = logging.getLogger(__name__)


def require_package(rule: ForeignRule) -> None:
    """Raise ValueError with the install command if the package of a rule is missing."""
    if importlib.util.find_spec(rule) is None:
        package = "'verl-mmupt[math_verify]'" if rule == "math_verify" else "mathruler"
        raise ValueError(f"rule={rule!r} needs a package that is not installed: pip install {package}")


@contextmanager
def comparison(rule: ForeignRule) -> Iterator[Callable[[str, str], bool | None]]:
    """Yield the grader as a function of an answer and the ground truth, with a child process for one group.

    The function returns None for a pair that takes longer than `SECONDS_PER_PAIR`, and once the group has taken
    `SECONDS_PER_GROUP`.
    """
    seconds_left, undecided = SECONDS_PER_GROUP, 0

    def accepts(answer: str, truth: str) -> bool | None:
        nonlocal seconds_left, undecided
        if answer == truth:
            return True
        equal = None
        if seconds_left > 0:
            start = time.monotonic()
            equal = sandbox(answer, truth)
            seconds_left -= time.monotonic() - start
        undecided += equal is None
        return equal

    with Sandbox(_FUNCTIONS[rule], SECONDS_PER_PAIR) as sandbox:
        yield accepts
    if undecided:
        _logger.warning(
            "%s did not decide %d pairs of answers, which count as different (limits: %g s per pair, %g s per group)",
            rule, undecided, SECONDS_PER_PAIR, SECONDS_PER_GROUP,
        )  # fmt: skip


def foreign_equal(rule: ForeignRule, answer: str, truth: str) -> bool:
    """Return whether the grader accepts an answer for a ground truth."""
    with comparison(rule) as accepts:
        return bool(accepts(answer, truth))


def foreign_classes(rule: ForeignRule, answers: Sequence[str]) -> list[list[str]]:
    """Return the connected components of distinct answers under the grader's equality, sorted.

    The graders are not symmetric, so the alphabetically later of two answers is taken as the ground truth.
    """
    texts = sorted(answers)
    with comparison(rule) as accepts:
        components = connected_components(len(texts), lambda a, b: bool(accepts(texts[a], texts[b])))
    return [[texts[position] for position in component] for component in components]
