"""Simulate runs to count how often the collapse alarm stops a healthy run, and how late it stops a collapse.

    .venv/bin/python benchmarks/collapse_alarm.py --runs 200

A run has 9 validations of 2,740 questions, one every ten training steps: the size of `mmupt_mathvista`. Each question
has a fixed probability of a correct answer, drawn from Beta(2, 1) (mean 2/3), and is sampled anew in every validation.
The majority ratio rises throughout, so only the fall of accuracy can trigger the alarm. `SCENARIOS` gives the change of
accuracy since the start at each validation, to which a normal deviate, the wobble, is added. As in training, the rule
is checked after every validation. Seeds are fixed.
"""

import argparse
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import median
from typing import Any

from verl_ext.collapse import CollapseRule, find_collapse

VALIDATIONS, QUESTIONS, STEPS_BETWEEN = 9, 2_740, 10
NAMES = [f"q{number}" for number in range(QUESTIONS)]
RULES = [CollapseRule(2.0, patience, min_fall) for patience in (2, 3) for min_fall in (0.0, 0.05, 0.07)]


@dataclass(frozen=True)
class Scenario:
    """A kind of run.

    Args:
        name: its row in the table.
        course: change of accuracy since the start in points, per validation.
        wobble: standard deviation of the noise added per validation, in points.
        healthy: whether every alarm is a false one.
    """

    name: str
    course: Sequence[float]
    wobble: float
    healthy: bool = True


def _flat(wobble: float) -> Scenario:
    return Scenario(f"flat, wobble of {wobble} points", [0.0] * VALIDATIONS, wobble)


def _gain(wobble: float) -> Scenario:
    return Scenario(f"gain of 4 points by step 40, wobble of {wobble} points", [0, 1, 2, 3, 4, 4, 4, 4, 4], wobble)


SCENARIOS = [
    *map(_flat, (0.5, 1.0, 1.5, 2.0)),
    *map(_gain, (0.5, 1.0, 1.5, 2.0)),
    Scenario("dip of 5 points within one validation, then 8 gained", [0, -5, -4, -3, -1.5, -0.5, 0.5, 2, 3], 0.5),
    Scenario("dip of 5 points over two validations, then 8 gained", [0, -2.5, -5, -3.5, -2.5, -1, 0.5, 2, 3], 1.0),
    Scenario("dip of 5 points for two validations, then 8 gained", [0, -5, -5, 3, 3, 3, 3, 3, 3], 1.0),
    Scenario("collapse by 2 points per validation", [0, 0, 0, -2, -4, -6, -8, -10, -12], 0.5, healthy=False),
    Scenario("collapse by 5 points per validation", [0, 0, 0, -5, -10, -15, -20, -25, -30], 0.5, healthy=False),
    Scenario("collapse by 10 points at once", [0, 0, 0, *[-10.0] * 6], 0.5, healthy=False),
    # The course of pass@4 in mmupt_tiny_unlearned.
    Scenario("collapse by 28 points from the start", [0, -12, -25, *[-28.0] * 6], 0.5, healthy=False),
]

# Majority ratio by training step.
MajorityRatios = dict[int, float]
# Correctness by step and question.
Validations = dict[int, dict[str, float]]


@cache
def _abilities(seed: int) -> tuple[list[float], tuple[Any, ...]]:
    """Draw the probability of a correct answer per question; also return the generator's state afterwards."""
    generator = random.Random(seed)
    return [generator.betavariate(2, 1) for _ in range(QUESTIONS)], generator.getstate()


def simulate(scenario: Scenario, seed: int) -> Iterator[tuple[MajorityRatios, Validations, float]]:
    """Yield the majority ratios, the validations and the points lost so far, after every validation."""
    abilities, state = _abilities(seed)
    generator = random.Random()
    generator.setstate(state)
    ratios: MajorityRatios = {}
    validations: Validations = {}
    for number, points in enumerate(scenario.course):
        validated_step = number * STEPS_BETWEEN
        for step in range(max(1, validated_step - STEPS_BETWEEN + 1), validated_step + 1):
            ratios[step] = 0.6 + 0.3 * step / (VALIDATIONS * STEPS_BETWEEN) + generator.gauss(0, 0.005)
        change = (points + generator.gauss(0, scenario.wobble)) / 100
        outcomes = [float(generator.random() < ability + change) for ability in abilities]
        validations[validated_step] = dict(zip(NAMES, outcomes, strict=True))
        yield ratios, validations, -points


def alarms(scenario: Scenario, seed: int, rules: Sequence[CollapseRule]) -> dict[CollapseRule, float]:
    """Return the points lost at the first alarm of each rule; rules without an alarm are missing."""
    lost_at_alarm: dict[CollapseRule, float] = {}
    for ratios, validations, lost in simulate(scenario, seed):
        for rule in rules:
            if rule not in lost_at_alarm and find_collapse(ratios, validations, rule):
                lost_at_alarm[rule] = lost
    return lost_at_alarm


def main() -> None:
    """Simulate and print a Markdown table."""
    parser = argparse.ArgumentParser(description="False and late alarms of the collapse rule.")
    parser.add_argument("--runs", type=int, default=200, help="runs per scenario (%(default)s)")
    runs = parser.parse_args().runs
    # Columns: patience, min_fall.
    rules = " | ".join(f"{rule.patience}, {rule.min_fall}" for rule in RULES)
    print(f"| runs of {runs} that are stopped | {rules} |")
    print("|---" * (1 + len(RULES)) + "|")
    for scenario in SCENARIOS:
        by_run = [alarms(scenario, seed, RULES) for seed in range(runs)]
        cells = []
        for rule in RULES:
            lost = [run[rule] for run in by_run if rule in run]
            late = "" if scenario.healthy or not lost else f" ({median(lost):.0f} points lost)"
            cells.append(f"{len(lost)}{late}")
        print(f"| {scenario.name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
