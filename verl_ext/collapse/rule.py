"""Decides whether a run has collapsed: the majority ratio has risen while held-out accuracy has fallen.

Pure functions of plain numbers. `alarm.py` collects the numbers and acts on the result.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import log, sqrt
from statistics import fmean

from verl_ext.scores import Score
from verl_ext.unknown_keys import is_number, is_whole, refuse_values

# A majority ratio this high has little room to rise, so it counts as rising unless it falls.
SATURATED = 0.9
# Tolerance for rounding errors in differences of means.
ROUNDING = 1e-9

# The score of each question, from 0 to 1, by question id.
Validation = Mapping[str, float]


@dataclass(frozen=True)
class CollapseRule:
    """The thresholds of `find_collapse`.

    Args:
        z: standard errors beyond chance that count as a fall or a rise.
        patience: consecutive validations that must have fallen.
        min_fall: smallest fall that counts, as a share of the questions: 0.07 is 7 points.

    Raises:
        ValueError: invalid values, naming each field.
    """

    z: float = 2.0
    patience: int = 3
    min_fall: float = 0.07

    def __post_init__(self) -> None:
        allowed = {
            "z": (is_number(self.z, 0), "a number of at least 0"),
            "patience": (is_whole(self.patience, 1), "a whole number of at least 1"),
            "min_fall": (is_number(self.min_fall, 0, 1), "a number from 0 to 1"),
        }
        refuse_values(self, allowed)


@dataclass(frozen=True)
class Fall:
    """The fall of a validation below the best earlier validation, over their common questions.

    Attributes:
        step, best_step: training steps of the two validations.
        value, best: means of the two validations over the common questions.
        difference: paired difference of the two validations.
        variance: variance between validations, see `wobble`.
        threshold: number of standard errors by which `value` must be below `best`.
        min_fall: smallest fall that counts.
    """

    step: int
    best_step: int
    value: float
    best: float
    difference: Score
    variance: float
    threshold: float
    min_fall: float

    @property
    def questions(self) -> int:
        """Number of common questions."""
        return self.difference.questions

    @property
    def standard_error(self) -> float:
        """Standard error of the paired difference, from the spread over questions and the wobble of validations."""
        return sqrt(self.difference.standard_error**2 + 2 * self.variance)

    @property
    def counts(self) -> bool:
        """Whether the fall is large enough to matter and chance does not explain it."""
        fall = self.best - self.value - ROUNDING
        # The cheap test first: the standard error over thousands of questions is slow.
        return fall > self.min_fall and fall > self.threshold * self.standard_error


@dataclass(frozen=True)
class Collapse:
    """A collapse: `measure` fell as `fall` describes while the majority ratio went from `ratio_before` to `ratio`.

    The ratios are means over the earlier and the later half of the steps between the two validations of the fall.
    """

    measure: str
    fall: Fall
    ratio_before: float
    ratio: float

    def __str__(self) -> str:
        fall = self.fall
        change = "rose" if self.ratio > self.ratio_before + ROUNDING else "stayed"
        return (
            f"{self.measure} on {fall.questions} validation questions fell from {100 * fall.best:.1f} % at step "
            f"{fall.best_step} to {100 * fall.value:.1f} % at step {fall.step}, by more than {fall.threshold:.1f} "
            f"standard errors of {100 * fall.standard_error:.1f} points, while the majority ratio {change} from "
            f"{self.ratio_before:.2f} to {self.ratio:.2f}"
        )


def find_collapse(
    majority_ratios: Mapping[int, float],
    validations: Mapping[int, Validation],
    rule: CollapseRule = CollapseRule(),
    measure: str = "accuracy",
) -> Collapse | None:
    """Return the collapse of a run at its latest validation, None if it has not collapsed.

    A run has collapsed if each of the last `patience` validations is below the best earlier validation by more than
    `min_fall` and beyond noise, and since then the majority ratio has risen, or is near 1 and has not fallen.

    Args:
        majority_ratios: training step -> majority ratio.
        validations: training step -> validation of the policy after this step.
        measure: name of the measure in `validations`, for the message.
    """
    steps = sorted(validations)
    before, last = steps[: -rule.patience], steps[-rule.patience :]
    if not before:
        return None
    best_step = best_of({step: validations[step] for step in before})
    # First without wobble: this is cheap and nearly always rules out a collapse.
    for variance in (lambda: 0.0, lambda: wobble({step: validations[step] for step in before})):
        falls = list(_falls(validations, best_step, last, rule, variance()))
        if len(falls) < rule.patience:
            return None
    between = [majority_ratios[step] for step in sorted(majority_ratios) if best_step < step <= last[-1]]
    if not rises(between, rule.z):
        return None
    earlier, later = _halves(between)
    return Collapse(measure, falls[-1], fmean(earlier), fmean(later))


def _falls(
    validations: Mapping[int, Validation], best_step: int, steps: Sequence[int], rule: CollapseRule, variance: float
) -> Iterator[Fall]:
    """Yield the falls of these validations below the best validation, up to the first that does not count."""
    for step in steps:
        fall = fall_between(validations, best_step, step, rule, variance)
        if fall is None or not fall.counts:
            return
        yield fall


def best_of(validations: Mapping[int, Validation]) -> int:
    """Return the step of the validation with the highest mean, the earliest in a tie."""
    return max(sorted(validations), key=lambda step: fmean(validations[step].values()))


def wobble(validations: Mapping[int, Validation]) -> float:
    """Return the variance between validations that the spread over their questions does not explain.

    A policy changes with every update even while its accuracy neither rises nor falls. The next validation reverses the
    noise of a validation, whereas learning and collapse persist. So for each two successive changes, the square of the
    smaller change is added to the variance if their signs differ and subtracted if they agree; its mean is 2/3 of the
    variance of independent normal deviates. (The negative covariance of successive changes, as in Roll 1984, Journal of
    Finance 39, is equally unbiased, but one large gain would turn the noise after it into wobble.) The variance over
    questions is then subtracted. The result is 0 for fewer than three validations.
    """
    changes = [
        _difference(validations[later], validations[earlier]) for earlier, later in pairwise(sorted(validations))
    ]
    excesses = []
    for change, following in pairwise(changes):
        if change is not None and following is not None:
            smaller = min(abs(change.value), abs(following.value)) ** 2
            variance = 1.5 * (smaller if change.value * following.value < 0 else -smaller)
            # Each change involves two validations, one of which both changes share.
            question_variance = (change.standard_error**2 + following.standard_error**2) / 4
            excesses.append(variance - question_variance)
    return max(0.0, fmean(excesses)) if excesses else 0.0


def fall_between(
    validations: Mapping[int, Validation], best_step: int, step: int, rule: CollapseRule, variance: float = 0.0
) -> Fall | None:
    """Compare two validations question by question; None if they share fewer than two questions.

    By chance alone, the best of k validations of one policy is up to sqrt(2 log k) standard errors above their mean,
    which is sqrt(log k) standard errors of a difference. This is added to `rule.z`. `variance` is the variance of a
    single validation, see `wobble`; a difference of two validations has twice that.
    """
    best, latest = validations[best_step], validations[step]
    difference = _difference(latest, best)
    if difference is None:
        return None
    looks = sum(earlier <= step for earlier in validations)
    return Fall(
        step=step,
        best_step=best_step,
        value=fmean([value for question, value in latest.items() if question in best]),
        best=fmean([value for question, value in best.items() if question in latest]),
        difference=difference,
        variance=variance,
        threshold=rule.z + sqrt(log(looks)),
        min_fall=rule.min_fall,
    )


def _difference(later: Validation, earlier: Validation) -> Score | None:
    common = sorted(earlier.keys() & later.keys())
    if len(common) < 2:
        return None
    return Score(tuple([later[question] - earlier[question] for question in common]))


def rises(ratios: Sequence[float], z: float) -> bool:
    """Whether, beyond noise, the later half of a series is above the earlier half, or is near 1 and not below it.

    The noise of a single value is estimated from successive changes, to which a trend contributes little.
    """
    if len(ratios) < 2:
        return False
    earlier, later = _halves(ratios)
    change = fmean(later) - fmean(earlier)
    noise = sqrt(fmean((after - before) ** 2 for before, after in pairwise(ratios)) / 2)
    margin = z * noise * sqrt(1 / len(earlier) + 1 / len(later)) + ROUNDING
    return change > margin or (fmean(later) >= SATURATED and change >= -margin)


def _halves(ratios: Sequence[float]) -> tuple[Sequence[float], Sequence[float]]:
    return ratios[: len(ratios) // 2], ratios[len(ratios) // 2 :]
