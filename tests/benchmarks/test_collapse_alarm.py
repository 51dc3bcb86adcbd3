"""The collapse alarm leaves healthy runs alone at the size of `mmupt_mathvista`, and still stops collapses."""

import pytest

from benchmarks import collapse_alarm
from benchmarks.collapse_alarm import SCENARIOS, Scenario
from verl_ext.collapse import CollapseRule

RUNS = 200
# The others are less likely to be stopped; benchmarks/collapse_alarm.py prints all of them.
WORST = [one for one in SCENARIOS if one.healthy and (one.wobble == 2.0 or "dip" in one.name)]
COLLAPSES = [one for one in SCENARIOS if not one.healthy]


def alarms(scenario: Scenario, runs: int) -> int:
    return sum(bool(collapse_alarm.alarms(scenario, seed, [CollapseRule()])) for seed in range(runs))


@pytest.mark.parametrize("scenario", WORST, ids=lambda one: one.name)
def test_a_healthy_run_is_stopped_at_most_twice_in_two_hundred(scenario: Scenario) -> None:
    assert alarms(scenario, RUNS) <= 2


@pytest.mark.parametrize("scenario", COLLAPSES, ids=lambda one: one.name)
def test_most_collapses_are_stopped_within_nine_validations(scenario: Scenario) -> None:
    # A slow fall, by 2 points per validation, may need more than nine.
    assert alarms(scenario, 40) >= (34 if "2 points" in scenario.name else 39)
