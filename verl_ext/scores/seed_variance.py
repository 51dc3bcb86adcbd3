"""Means over runs with different seeds, with standard errors that treat both questions and seeds as samples.

The model has crossed random effects: the score of run r on question q is a mean plus the effects of the run, of the
question and of their interaction. The variance of a mean is the sum of the variance components, as in the quasi F
ratios of Clark 1973 ("The language-as-fixed-effect fallacy", Journal of Verbal Learning and Verbal Behavior 12), with
the degrees of freedom of Satterthwaite 1946. A standard error over questions alone holds the seeds fixed, so it
describes these runs rather than the recipe.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, sqrt

import numpy as np
from scipy import stats

from verl_ext.scores.at_k import Score


@dataclass(frozen=True)
class SeedEstimate:
    """A mean over runs and questions, with its standard error and degrees of freedom."""

    value: float
    standard_error: float
    degrees_of_freedom: float

    @property
    def p_value(self) -> float:
        """Two-sided p-value of a t-test against 0; 0 or 1 if nothing varies."""
        if not self.standard_error:
            return 1.0 if not self.value else 0.0
        return float(2 * stats.t.sf(abs(self.value) / self.standard_error, self.degrees_of_freedom))


def mean_over_runs(runs: Sequence[Score]) -> SeedEstimate:
    """Estimate the mean of a recipe's runs, or of their differences from one fixed model.

    Args:
        runs: one score per run, on the same questions in the same order. With a single run, the standard error is over
            questions alone.

    Raises:
        ValueError: no runs, or runs with different numbers of questions.
    """
    return _estimate([runs], [1.0])


def difference_between_runs(runs: Sequence[Score], baseline: Sequence[Score]) -> SeedEstimate:
    """Estimate the mean of `runs` minus the mean of `baseline`, on the same questions.

    Raises:
        ValueError: the errors of `mean_over_runs`.
    """
    return _estimate([runs, baseline], [1.0, -1.0])


def _estimate(recipes: Sequence[Sequence[Score]], signs: Sequence[float]) -> SeedEstimate:
    numbers = {score.questions for runs in recipes for score in runs}
    if len(numbers) != 1 or not all(recipes):
        raise ValueError(f"all runs need the same questions, got runs with {sorted(numbers)} questions")
    (questions,) = numbers
    matrices = [np.array([score.per_question for score in runs]) for runs in recipes]
    per_question = sum(sign * matrix.mean(axis=0) for sign, matrix in zip(signs, matrices, strict=True))
    value, question_variance = float(np.mean(per_question)), float(np.var(per_question, ddof=1) / questions)
    components = [_components(matrix) for matrix in matrices if len(matrix) > 1]
    excess = sum(run_variance - interaction_variance for run_variance, interaction_variance, _ in components)
    if excess <= 0:
        # Noise over questions explains all variation between the runs.
        return SeedEstimate(value, sqrt(question_variance), questions - 1)
    variance = question_variance + excess
    terms = [(question_variance, questions - 1), *((run_variance, freedom) for run_variance, _, freedom in components)]
    denominator = sum(term**2 / freedom for term, freedom in terms)
    return SeedEstimate(value, sqrt(variance), variance**2 / denominator if denominator else inf)


def _components(matrix: np.ndarray) -> tuple[float, float, int]:
    """Return, for runs x questions, the mean's variances due to runs and to interaction, and the number of runs - 1."""
    runs, questions = matrix.shape
    by_run, by_question = matrix.mean(axis=1, keepdims=True), matrix.mean(axis=0, keepdims=True)
    residuals = matrix - by_run - by_question + matrix.mean()
    interaction_variance = float((residuals**2).sum() / ((runs - 1) * (questions - 1)) / (runs * questions))
    return float(np.var(by_run, ddof=1) / runs), interaction_variance, runs - 1
