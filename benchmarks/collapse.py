"""How often the collapse alarm is false, and how late it is, in simulated runs.

    .venv/bin/python benchmarks/collapse.py

Every run has 50 validations of 256 questions, one after every fifth training step. A question is answered right with a
probability of its own, drawn once (Beta(2, 1), a mean of 2/3), anew in every validation: as noisy as sampling is, more
than greedy answers of a policy that hardly changes. The rule is asked after every validation, as in training. The share
is 0.6 with noise of 0.02 a step; where it rises, it rises evenly to 0.9. In a collapse, at the eleventh validation and
each one after it, another 1 or 2 % of the questions are lost: from then on they are answered right one time in ten.
Prints one line for each kind of run and each rule: in how many runs there was an alarm and, in a collapse, how many
points had been lost at that time. The seeds are fixed.
"""

import argparse
import random
from collections.abc import Iterator
from statistics import fmean, median

from verl_ext.collapse import CollapseRule, find_collapse

VALIDATIONS, QUESTIONS, STEPS_BETWEEN = 50, 256, 5
COLLAPSE_BEGINS = 10
RULES = [CollapseRule(z, patience) for z in (1.0, 1.5, 2.0) for patience in (1, 2)]


def simulate(seed: int, share_rises: bool, lost_at_each: float) -> Iterator[tuple[dict, dict, float]]:
    """Yield shares, validations and the points lost so far, after every validation."""
    draw = random.Random(seed)
    ability = {f"q{number}": draw.betavariate(2, 1) for number in range(QUESTIONS)}
    start = fmean(ability.values())
    shares: dict[int, float] = {}
    validations: dict[int, dict[str, float]] = {}
    for validation in range(VALIDATIONS):
        step = validation * STEPS_BETWEEN
        for one in range(step - STEPS_BETWEEN + 1, step + 1):
            progress = one / (VALIDATIONS * STEPS_BETWEEN) if share_rises else 0
            if one > 0:
                shares[one] = 0.6 + 0.3 * progress + draw.gauss(0, 0.02)
        if validation >= COLLAPSE_BEGINS:
            for question in ability:
                if draw.random() < lost_at_each:
                    ability[question] = 0.1
        validations[step] = {question: float(draw.random() < chance) for question, chance in ability.items()}
        yield shares, validations, 100 * (start - fmean(ability.values()))


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description="False and late alarms of the collapse rule.")
    parser.add_argument("--runs", type=int, default=500, help="of each kind")
    runs = parser.parse_args().runs
    kinds = {
        "flat accuracy, flat share": (False, 0.0),
        "flat accuracy, rising share": (True, 0.0),
        "collapse by 1 % a validation": (True, 0.01),
        "collapse by 2 % a validation": (True, 0.02),
    }
    for kind, (share_rises, lost) in kinds.items():
        lost_at_alarm: dict[CollapseRule, list[float]] = {rule: [] for rule in RULES}
        for seed in range(runs):
            waiting = list(RULES)
            for shares, validations, points in simulate(seed, share_rises, lost):
                for rule in [rule for rule in waiting if find_collapse(shares, validations, rule)]:
                    lost_at_alarm[rule].append(points)
                    waiting.remove(rule)
        for rule, points in lost_at_alarm.items():
            late = f", {median(points):.1f} points lost by then (median)" if lost and points else ""
            print(f"{kind}, z={rule.z} patience={rule.patience}: {100 * len(points) / runs:.1f} % of {runs} runs{late}")


if __name__ == "__main__":
    main()
