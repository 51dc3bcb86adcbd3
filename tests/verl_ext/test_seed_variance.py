"""Estimates over runs account for both questions and seeds, and rarely call equal recipes different."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from verl_ext.scores import Score, average
from verl_ext.scores.seed_variance import difference_between_runs, mean_over_runs

QUESTIONS = 512

runs = st.integers(1, 4).flatmap(
    lambda count: st.lists(
        st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=6, max_size=6).map(lambda values: Score(tuple(values))),
        min_size=count,
        max_size=count,
    )
)


def recipe(draw: np.random.Generator, ability: np.ndarray, seeds: int, spread: float) -> list[Score]:
    """Runs whose accuracies vary with a standard deviation of `spread`."""
    chances = [np.clip(ability + draw.normal(0, spread), 0, 1) for _ in range(seeds)]
    return [Score(tuple((draw.random(len(ability)) < chance).astype(float).tolist())) for chance in chances]


@pytest.mark.parametrize("spread", [0.02, 0.04])
def test_equal_recipes_differ_significantly_in_five_percent_of_simulations(spread: float) -> None:
    draw = np.random.default_rng(1)
    significant = 0
    for _ in range(tables := 800):
        ability = draw.beta(15, 5, QUESTIONS)
        first, second = (recipe(draw, ability, 3, spread) for _ in range(2))
        significant += difference_between_runs(first, second).p_value < 0.05
    assert 0.03 <= significant / tables <= 0.07


def test_a_real_difference_is_significant() -> None:
    draw = np.random.default_rng(2)
    ability = draw.beta(15, 5, QUESTIONS)
    first, second = recipe(draw, ability + 0.1, 3, 0.01), recipe(draw, ability, 3, 0.01)
    estimate = difference_between_runs(first, second)
    assert estimate.value == pytest.approx(0.1, abs=0.03) and estimate.p_value < 0.05


def test_the_standard_error_of_a_single_run_is_over_questions() -> None:
    run = Score((0.0, 1.0, 1.0, 0.0))
    estimate = mean_over_runs([run])
    assert (estimate.value, estimate.standard_error) == pytest.approx((run.value, run.standard_error))
    assert estimate.degrees_of_freedom == 3


def test_variation_between_runs_beyond_their_questions_increases_the_standard_error() -> None:
    # All questions of a run have the same score, so the seeds alone explain that the means 1/4 and 3/4 differ.
    low, high = Score((0.25,) * 4), Score((0.75,) * 4)
    estimate = mean_over_runs([low, high])
    # Variance of the mean of two runs: ((1/4)^2 + (1/4)^2) / 2.
    assert estimate.standard_error == pytest.approx((1 / 16) ** 0.5)
    assert estimate.degrees_of_freedom == pytest.approx(1)
    assert mean_over_runs([low, low]).standard_error == 0


@given(runs, runs)
def test_an_estimate_is_the_difference_of_means_and_never_more_certain_than_over_questions_alone(
    first: list[Score], second: list[Score]
) -> None:
    estimate = difference_between_runs(first, second)
    over_questions = average(first) - average(second)
    assert estimate.value == pytest.approx(over_questions.value, abs=1e-12)
    assert estimate.standard_error >= over_questions.standard_error - 1e-12
    mirrored = difference_between_runs(second, first)
    assert (mirrored.value, mirrored.p_value) == pytest.approx((-estimate.value, estimate.p_value), abs=1e-9)


def test_runs_on_different_questions_are_refused() -> None:
    with pytest.raises(ValueError, match=r"the same questions, got runs with \[2, 3\] questions"):
        difference_between_runs([Score((0.0, 1.0))], [Score((0.0, 1.0, 1.0))])
