"""How often the collapse alarm stops a healthy run, and how late it stops a collapse, in simulated runs.

    python benchmarks/collapse_alarm.py --runs 200

A run has one validation after every tenth training step: 9 of 2,740 questions, the size of `mmupt_mathvista`. Each
question is answered right with its own probability, drawn once (Beta(2, 1), a mean of 2/3), and sampled anew in every
validation. The majority ratio rises throughout, so that only the rule about falls decides. `SCENARIOS` says how far
the accuracy of the policy lies from its start at each validation; the wobble of the policy comes on top, a normal
deviate per validation. The rule is asked after every validation, as in training. Seeds are fixed.
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
        name: what it shows.
        course: points by which the accuracy differs from its start, one per validation.
        wobble: standard deviation, in points, of the policy from one validation to the next.
        healthy: whether any alarm is false.
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

Shares = dict[int, float]
Validations = dict[int, dict[str, float]]


@cache
def _abilities(seed: int) -> tuple[list[float], tuple[Any, ...]]:
    """How often each question is answered right, and the state of the generator after drawing that."""
    draw = random.Random(seed)
    return [draw.betavariate(2, 1) for _ in range(QUESTIONS)], draw.getstate()


def simulate(scenario: Scenario, seed: int) -> Iterator[tuple[Shares, Validations, float]]:
    """Yield shares, validations and the points lost so far, after every validation."""
    abilities, state = _abilities(seed)
    draw = random.Random()
    draw.setstate(state)
    shares: Shares = {}
    validations: Validations = {}
    for number, points in enumerate(scenario.course):
        step = number * STEPS_BETWEEN
        for one in range(max(1, step - STEPS_BETWEEN + 1), step + 1):
            shares[one] = 0.6 + 0.3 * one / (VALIDATIONS * STEPS_BETWEEN) + draw.gauss(0, 0.005)
        change = (points + draw.gauss(0, scenario.wobble)) / 100
        outcomes = [float(draw.random() < right + change) for right in abilities]
        validations[step] = dict(zip(NAMES, outcomes, strict=True))
        yield shares, validations, -points


def alarms(scenario: Scenario, seed: int, rules: Sequence[CollapseRule]) -> dict[CollapseRule, float]:
    """Return the points that were lost when each rule first saw a collapse, for the rules that saw one."""
    lost_at_alarm: dict[CollapseRule, float] = {}
    for shares, validations, lost in simulate(scenario, seed):
        for rule in rules:
            if rule not in lost_at_alarm and find_collapse(shares, validations, rule):
                lost_at_alarm[rule] = lost
    return lost_at_alarm


def main() -> None:
    """Simulate and print a Markdown table."""
    parser = argparse.ArgumentParser(description="False and late alarms of the collapse rule.")
    parser.add_argument("--runs", type=int, default=200, help="per scenario")
    runs = parser.parse_args().runs
    print(f"| runs of {runs} that are stopped | " + " | ".join(f"{r.patience}, {r.min_fall}" for r in RULES) + " |")
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
