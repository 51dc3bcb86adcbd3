"""The collapse alarm stops collapses, but not healthy runs, at the size of `mmupt_mathvista`."""

import pytest

from benchmarks import collapse_alarm
from benchmarks.collapse_alarm import SCENARIOS, Scenario
from verl_ext.collapse import CollapseRule

RUNS = 200
HEALTHY = [scenario for scenario in SCENARIOS if scenario.healthy]
COLLAPSES = [scenario for scenario in SCENARIOS if not scenario.healthy]


def alarms(scenario: Scenario, runs: int) -> int:
    return sum(bool(collapse_alarm.alarms(scenario, seed, [CollapseRule()])) for seed in range(runs))


@pytest.mark.parametrize("scenario", HEALTHY, ids=lambda scenario: scenario.name)
def test_a_healthy_run_is_stopped_at_most_twice_in_two_hundred(scenario: Scenario) -> None:
    assert alarms(scenario, RUNS) <= 2


@pytest.mark.parametrize("scenario", COLLAPSES, ids=lambda scenario: scenario.name)
def test_most_collapses_are_stopped_within_nine_validations(scenario: Scenario) -> None:
    # A slow fall of 2 points per validation may take more than nine.
    assert alarms(scenario, 40) >= (34 if "2 points" in scenario.name else 39)
