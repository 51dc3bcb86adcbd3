"""When a run has collapsed: the share of the vote has risen while held-out questions are answered worse than before.

Pure, over plain numbers; where they come from and what follows from it is for `alarm.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import log, sqrt
from statistics import fmean

from verl_ext.scores import Score

# A share that cannot rise much further counts as rising for as long as it does not fall.
SATURATED = 0.9
# Differences of means that rounding alone can make.
ROUNDING = 1e-9

# How right each question is answered, from 0 to 1, by the id of the question.
Validation = Mapping[str, float]


@dataclass(frozen=True)
class CollapseRule:
    """z: standard errors beyond chance that count as a fall or a rise. patience: validations running that must fall.

    Raises:
        ValueError: a negative z, or a patience below 1.
    """

    z: float = 2.0
    patience: int = 2

    def __post_init__(self) -> None:
        if self.z < 0:
            raise ValueError(f"z must be at least 0, not {self.z}")
        if self.patience < 1:
            raise ValueError(f"patience must be at least 1, not {self.patience}")


@dataclass(frozen=True)
class Fall:
    """How far a validation lies below the best one before it, over the same questions.

    step, best_step: of both. value, best: their means over these questions. standard_error: of the paired difference.
    questions: their number. threshold: standard errors that `value` must lie below `best` to count.
    """

    step: int
    best_step: int
    value: float
    best: float
    standard_error: float
    questions: int
    threshold: float

    @property
    def is_beyond_noise(self) -> bool:
        """Whether chance does not explain it."""
        return self.best - self.value > self.threshold * self.standard_error + ROUNDING


@dataclass(frozen=True)
class Collapse:
    """A run that has collapsed: `measure` fell as `fall` says, its share went from `share_before` to `share`.

    The shares are means over the earlier and the later half of the steps between the two validations of the fall.
    """

    measure: str
    fall: Fall
    share_before: float
    share: float

    def __str__(self) -> str:
        fall = self.fall
        change = "rose" if self.share > self.share_before + ROUNDING else "stayed"
        return (
            f"{self.measure} on {fall.questions} validation questions fell from {100 * fall.best:.1f} % at step "
            f"{fall.best_step} to {100 * fall.value:.1f} % at step {fall.step}, by more than {fall.threshold:.1f} "
            f"standard errors of {100 * fall.standard_error:.1f} points, while the share of the vote {change} from "
            f"{self.share_before:.2f} to {self.share:.2f}"
        )


def find_collapse(
    shares: Mapping[int, float],
    validations: Mapping[int, Validation],
    rule: CollapseRule = CollapseRule(),
    measure: str = "accuracy",
) -> Collapse | None:
    """Return how a run has collapsed at its latest validation, None if it has not.

    It has if each of the last `patience` validations lies beyond noise below the best one before them, and the share
    of the vote has risen since that one, or is near 1 and has not fallen.

    Args:
        shares: training step -> share of the vote in it.
        validations: step -> validation of the policy after it.
        rule: see there.
        measure: what `validations` measure, for the message.
    """
    steps = sorted(validations)
    before, last = steps[: -rule.patience], steps[-rule.patience :]
    if not before:
        return None
    best_step = best_of({step: validations[step] for step in before})
    falls = [fall for step in last if (fall := fall_between(validations, best_step, step, rule.z)) is not None]
    if len(falls) < rule.patience or not all(fall.is_beyond_noise for fall in falls):
        return None
    between = [shares[step] for step in sorted(shares) if best_step < step <= last[-1]]
    if not rises(between, rule.z):
        return None
    earlier, later = _halves(between)
    return Collapse(measure, falls[-1], fmean(earlier), fmean(later))


def best_of(validations: Mapping[int, Validation]) -> int:
    """Return the step of the validation with the highest mean, the earliest one of several."""
    return max(sorted(validations), key=lambda step: fmean(validations[step].values()))


def fall_between(validations: Mapping[int, Validation], best_step: int, step: int, z: float) -> Fall | None:
    """Compare two validations question by question; None where they have fewer than two questions in common.

    The best of k validations of one and the same policy lies up to sqrt(2 log k) of their standard errors above their
    mean by chance, which is sqrt(log k) of those of a difference: so much is added to `z`.
    """
    best, latest = validations[best_step], validations[step]
    common = sorted(best.keys() & latest.keys())
    if len(common) < 2:
        return None
    looks = sum(one <= step for one in validations)
    of_best, of_latest = (Score(tuple(one[question] for question in common)) for one in (best, latest))
    return Fall(
        step=step,
        best_step=best_step,
        value=of_latest.value,
        best=of_best.value,
        standard_error=(of_latest - of_best).standard_error,
        questions=len(common),
        threshold=z + sqrt(log(looks)),
    )


def rises(shares: Sequence[float], z: float) -> bool:
    """Whether the later half of a series lies above its earlier half, or near 1 and not below it, beyond noise.

    The noise of a single value is taken from the changes from each to the next, which a trend hardly adds to.
    """
    if len(shares) < 2:
        return False
    earlier, later = _halves(shares)
    change = fmean(later) - fmean(earlier)
    noise = sqrt(fmean((after - before) ** 2 for before, after in pairwise(shares)) / 2)
    margin = z * noise * sqrt(1 / len(earlier) + 1 / len(later)) + ROUNDING
    return change > margin or (fmean(later) >= SATURATED and change >= -margin)


def _halves(shares: Sequence[float]) -> tuple[Sequence[float], Sequence[float]]:
    return shares[: len(shares) // 2], shares[len(shares) // 2 :]
