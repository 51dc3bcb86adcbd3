r"""Cost of finding the equal answers of a step, and whom the groups elect: our rule against graders of the field.

    .venv/bin/python benchmarks/votes.py [--prompts 512] [--responses 16] [--seed 0]

Groups of answers are synthetic, each to a different question (`vote_groups.py`). Which answers are equal and which
are right is known from the drawing, not from a grader.

Ours is `classify`. The others cluster greedily, as EMPO does: an answer is compared with the first one of each cluster,
in the order of the responses, in this process and without a limit; Math-Verify parses every answer once. The vote on
top costs nothing beside it. Every measurement runs in a new process, where no answer has been read; imports and the
drawing are not counted. Figures are CPU seconds: of ours medians of five, of the others one run, of Math-Verify one run
over the first 64 groups. Six minutes.
"""

import argparse
import gc
import multiprocessing
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence

from math_verify import parse, verify
from mathruler.grader import grade_answer

import verl_ext.answers.foreign_rules.math_verify_rule  # noqa: F401  (loads its grammar, silences its warnings)
from benchmarks.answers import print_table
from benchmarks.vote_groups import AnswerGroup, draw_groups
from verl_ext.answers import classify

REPEATS = 5
MATH_VERIFY_GROUPS = 64
# A measurement that takes longer hangs.
SECONDS_AT_MOST = 1800

Classes = Sequence[Sequence[int]]


# Ways to find the equal answers of a group


def ours(group: AnswerGroup) -> Classes:
    """The classes of `classify`."""
    return classify(group.answers, choices=group.choices).members


def by_string(group: AnswerGroup) -> Classes:
    """As TTRL and the paper's code count."""
    members = defaultdict(list)
    for position, answer in enumerate(group.answers):
        if answer is not None:
            members[answer].append(position)
    return list(members.values())


def greedily(answers: Sequence[str | None], same: Callable[[int, int], bool]) -> Classes:
    """Put every answer to the first cluster whose first answer it equals."""
    clusters: list[list[int]] = []
    for position, answer in enumerate(answers):
        if answer is not None:
            cluster = next((cluster for cluster in clusters if same(position, cluster[0])), None)
            if cluster is None:
                clusters.append([position])
            else:
                cluster.append(position)
    return clusters


def by_mathruler(group: AnswerGroup) -> Classes:
    """Greedy clusters by the grader of the paper's code."""
    answers = group.answers
    return greedily(answers, lambda a, b: grade_answer(answers[a], answers[b]))


def by_math_verify(group: AnswerGroup) -> Classes:
    """Greedy clusters by Math-Verify."""
    parsed = [answer and parse(rf"\boxed{{{answer}}}", parsing_timeout=None) for answer in group.answers]
    return greedily(group.answers, lambda a, b: verify(parsed[b], parsed[a], timeout_seconds=None))


def by_construction(group: AnswerGroup) -> Classes:
    """What an omniscient grader finds."""
    members = defaultdict(list)
    for position, label in enumerate(group.labels):
        if label is not None:
            members[label].append(position)
    return list(members.values())


# Cost


def timed(task: tuple[Callable[[AnswerGroup], Classes], list[AnswerGroup]]) -> tuple[float, list[Classes]]:
    """Return the CPU seconds for some groups, and their classes; runs in a separate process."""
    find, groups = task
    # Garbage collection looks at what is made from here on, not at all that this script has imported and drawn.
    gc.freeze()
    gc.collect()
    start = time.process_time()
    classes = [find(group) for group in groups]
    return time.process_time() - start, classes


def measure(
    find: Callable[[AnswerGroup], Classes], groups: list[AnswerGroup], repeats: int = 1
) -> tuple[float, list[Classes]]:
    """Return the median of the CPU seconds of several measurements, and the classes of the last."""
    seconds: list[float] = []
    classes: list[Classes] = []
    for _ in range(repeats):
        with multiprocessing.get_context("fork").Pool(1) as pool:
            spent, classes = pool.apply_async(timed, [(find, groups)]).get(SECONDS_AT_MOST)
        seconds.append(spent)
    return statistics.median(seconds), classes


# Whom the groups elect


def elected(group: AnswerGroup, classes: Classes) -> tuple[int | None, Sequence[int]]:
    """The answer that most of the largest class gave, and that class; a tie or a single answer elects none."""
    ranked = sorted(classes, key=len, reverse=True)
    if sum(map(len, ranked)) < 2 or (len(ranked) > 1 and len(ranked[0]) == len(ranked[1])):
        return None, ()
    labels = [group.labels[position] for position in ranked[0]]
    return max(labels, key=labels.count), ranked[0]


def outcomes(groups: Sequence[AnswerGroup], found: Sequence[Classes]) -> list[object]:
    """Count groups that elect the correct answer, another one or none, and the rewards that are correct."""
    votes = [elected(group, classes) for group, classes in zip(groups, found, strict=True)]
    winners = [label for label, _ in votes]
    rewarded = sum(
        (position in members) == (label == 0)
        for group, (_, members) in zip(groups, votes, strict=True)
        for position, label in enumerate(group.labels)
    )
    responses = sum(len(group.labels) for group in groups)
    right, none = winners.count(0), winners.count(None)
    mixed = sum(
        len({group.labels[position] for position in members}) > 1
        for group, (_, members) in zip(groups, votes, strict=True)
    )
    return [right, len(winners) - right - none, none, mixed, f"{rewarded / responses:.1%}"]


def differences(groups: Sequence[AnswerGroup], first: Sequence[Classes], second: Sequence[Classes]) -> list[object]:
    """In how many groups two ways elect differently, and in how many of these each of them elects the truth."""
    pairs = [
        (elected(group, by_first)[0], elected(group, by_second)[0])
        for group, by_first, by_second in zip(groups, first, second, strict=True)
    ]
    differing = [pair for pair in pairs if pair[0] != pair[1]]
    first_right, second_right = (sum(pair[side] == 0 for pair in differing) for side in (0, 1))
    return [
        f"{len(differing)} ({len(differing) / len(groups):.1%})",
        first_right,
        second_right,
        len(differing) - first_right - second_right,
    ]


# Report


def describe(groups: Sequence[AnswerGroup]) -> None:
    """Print how much the answers repeat."""
    given = [answer for group in groups for answer in group.answers if answer is not None]
    in_group = statistics.mean(len(set(group.answers) - {None}) for group in groups)
    print(
        f"{len(groups)} groups of {len(groups[0].answers)}: {len(given)} answers, {len(set(given))} distinct texts in "
        f"all, {in_group:.1f} in a group\n"
    )


def compare(groups: list[AnswerGroup]) -> None:
    """Print costs, then elections."""
    few = groups[:MATH_VERIFY_GROUPS]
    print("## Cost\n")
    describe(groups)
    seconds, found = {}, {}
    for name, find, some, repeats in (
        ("ours", ours, groups, REPEATS),
        ("greedy mathruler", by_mathruler, groups, 1),
        ("greedy Math-Verify", by_math_verify, few, 1),
    ):
        spent, found[name] = measure(find, some, repeats)
        seconds[name] = spent * len(groups) / len(some)
    print_table(
        ["classes by", "CPU s per step", "CPU ms per group", "ratio"],
        [
            [name, f"{spent:.2f}", f"{1000 * spent / len(groups):.2f}", f"{spent / seconds['ours']:.0f}"]
            for name, spent in seconds.items()
        ],
    )
    print("## Whom the groups elect\n")
    found |= {"string": [by_string(group) for group in groups], "construction": [by_construction(g) for g in groups]}
    names = ["string", "greedy mathruler", "ours", "construction"]
    header = ["classes by", "correct", "other", "none", "of mixed answers", "responses rewarded as by the ground truth"]
    print_table(header, [[name, *outcomes(groups, found[name])] for name in names])
    print_table(
        ["two ways", "groups where they differ", "first right", "second right", "neither"],
        [
            [f"ours, {name}", *differences(groups, found["ours"], found[name])]
            for name in ("string", "greedy mathruler", "construction")
        ],
    )


def scale(prompts: int, responses: int, seed: int) -> None:
    """Print how our cost grows with both sizes."""
    print("## Growth of our cost\n")
    rows = []
    for many, n in (
        (prompts, 8),
        (prompts, 16),
        (prompts, 32),
        (prompts, 64),
        (4 * prompts, responses),
        (16 * prompts, responses),
    ):
        groups = draw_groups(many, n, seed)
        seconds, _ = measure(ours, groups, 3)
        rows.append([many, n, f"{seconds:.2f}", f"{1000 * seconds / many:.2f}", f"{1e6 * seconds / (many * n):.0f}"])
    print_table(["prompts", "n", "CPU s", "CPU ms per group", "CPU µs per answer"], rows)


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description="Cost and outcome of the votes of a step.")
    parser.add_argument("--prompts", type=int, default=512)
    parser.add_argument("--responses", type=int, default=16, help="n")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    compare(draw_groups(arguments.prompts, arguments.responses, arguments.seed))
    scale(arguments.prompts, arguments.responses, arguments.seed)


if __name__ == "__main__":
    main()
