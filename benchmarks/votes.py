r"""Cost and outcome of the votes of a step: our answer rule against other graders.

    .venv/bin/python benchmarks/votes.py [--prompts 512] [--responses 16] [--seed 0]

The groups are synthetic, a different question each (`vote_groups.py`); equal and correct answers are known by
construction, without a grader.

Ours is `classify`. The others cluster greedily, like EMPO: each answer, in the order of the responses, is compared with
the first answer of each cluster, in this process and without a time limit; Math-Verify parses every answer once.
Counting the votes costs nothing in comparison. Every measurement runs in a new process without cached answers; imports
and drawing are not counted. Figures are CPU seconds: the median of five runs for ours, one run for mathruler, one run
over the first 64 groups, scaled up, for Math-Verify. Takes six minutes.
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
# A measurement beyond this limit hangs.
SECONDS_AT_MOST = 1800

Classes = Sequence[Sequence[int]]


# Classifiers: find the equal answers of a group


def ours(group: AnswerGroup) -> Classes:
    """Classify by our rule."""
    return classify(group.answers, choices=group.choices).members


def by_string(group: AnswerGroup) -> Classes:
    """Classify by equal strings, as TTRL and the paper's code count."""
    members = defaultdict(list)
    for position, answer in enumerate(group.answers):
        if answer is not None:
            members[answer].append(position)
    return list(members.values())


def greedily(answers: Sequence[str | None], same: Callable[[int, int], bool]) -> Classes:
    """Add every answer to the first cluster whose first answer it equals."""
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
    """Cluster greedily with mathruler, the grader of the paper's code."""
    answers = group.answers
    return greedily(answers, lambda a, b: grade_answer(answers[a], answers[b]))


def by_math_verify(group: AnswerGroup) -> Classes:
    """Cluster greedily with Math-Verify."""
    parsed = [answer and parse(rf"\boxed{{{answer}}}", parsing_timeout=None) for answer in group.answers]
    return greedily(group.answers, lambda a, b: verify(parsed[b], parsed[a], timeout_seconds=None))


def by_construction(group: AnswerGroup) -> Classes:
    """Classify by the known labels, like an omniscient grader."""
    members = defaultdict(list)
    for position, label in enumerate(group.labels):
        if label is not None:
            members[label].append(position)
    return list(members.values())


# Cost


def timed(task: tuple[Callable[[AnswerGroup], Classes], list[AnswerGroup]]) -> tuple[float, list[Classes]]:
    """Return the CPU seconds for classifying groups, and their classes; runs in a separate process."""
    find, groups = task
    # Keeps the garbage collector from scanning what this script has imported and drawn.
    gc.freeze()
    gc.collect()
    start = time.process_time()
    classes = [find(group) for group in groups]
    return time.process_time() - start, classes


def measure(
    find: Callable[[AnswerGroup], Classes], groups: list[AnswerGroup], repeats: int = 1
) -> tuple[float, list[Classes]]:
    """Return the median CPU seconds of repeated measurements, and the classes of the last."""
    seconds: list[float] = []
    classes: list[Classes] = []
    for _ in range(repeats):
        with multiprocessing.get_context("fork").Pool(1) as pool:
            cpu_seconds, classes = pool.apply_async(timed, [(find, groups)]).get(SECONDS_AT_MOST)
        seconds.append(cpu_seconds)
    return statistics.median(seconds), classes


# Outcome: the answers that groups elect


def elected(group: AnswerGroup, classes: Classes) -> tuple[int | None, Sequence[int]]:
    """The label of most answers in the largest class, and that class; None and () for a tie or a single answer."""
    ranked = sorted(classes, key=len, reverse=True)
    if sum(map(len, ranked)) < 2 or (len(ranked) > 1 and len(ranked[0]) == len(ranked[1])):
        return None, ()
    labels = [group.labels[position] for position in ranked[0]]
    return max(labels, key=labels.count), ranked[0]


def outcomes(groups: Sequence[AnswerGroup], classifications: Sequence[Classes]) -> list[object]:
    """Table cells: groups that elect a correct, a wrong or no answer or a mixed class; the share of true rewards."""
    votes = [elected(group, classes) for group, classes in zip(groups, classifications, strict=True)]
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
    """Table cells: groups where two classifiers elect differently; how many first, second or none of them get right."""
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
    """Print the numbers of answers and of distinct texts."""
    answers = [answer for group in groups for answer in group.answers if answer is not None]
    per_group = statistics.mean(len(set(group.answers) - {None}) for group in groups)
    print(
        f"{len(groups)} groups of {len(groups[0].answers)}: {len(answers)} answers, {len(set(answers))} distinct texts "
        f"in all, {per_group:.1f} per group\n"
    )


def compare(groups: list[AnswerGroup]) -> None:
    """Print the costs of the classifiers, then what they elect."""
    few = groups[:MATH_VERIFY_GROUPS]
    print("## Cost\n")
    describe(groups)
    seconds, classes = {}, {}
    for name, find, measured, repeats in (
        ("ours", ours, groups, REPEATS),
        ("greedy mathruler", by_mathruler, groups, 1),
        ("greedy Math-Verify", by_math_verify, few, 1),
    ):
        cpu_seconds, classes[name] = measure(find, measured, repeats)
        seconds[name] = cpu_seconds * len(groups) / len(measured)
    print_table(
        ["classes by", "CPU s per step", "CPU ms per group", "ratio"],
        [
            [name, f"{cost:.2f}", f"{1000 * cost / len(groups):.2f}", f"{cost / seconds['ours']:.0f}"]
            for name, cost in seconds.items()
        ],
    )
    print("## What the groups elect\n")
    classes |= {"string": [by_string(group) for group in groups], "construction": [by_construction(g) for g in groups]}
    names = ["string", "greedy mathruler", "ours", "construction"]
    header = ["classes by", "correct", "other", "none", "of mixed answers", "responses rewarded as by the ground truth"]
    print_table(header, [[name, *outcomes(groups, classes[name])] for name in names])
    print_table(
        ["two ways", "groups where they differ", "first right", "second right", "neither"],
        [
            [f"ours, {name}", *differences(groups, classes["ours"], classes[name])]
            for name in ("string", "greedy mathruler", "construction")
        ],
    )


def scale(prompts: int, responses: int, seed: int) -> None:
    """Print how our cost grows with prompts and responses."""
    print("## Growth of our cost\n")
    rows = []
    for count, n in (
        (prompts, 8),
        (prompts, 16),
        (prompts, 32),
        (prompts, 64),
        (4 * prompts, responses),
        (16 * prompts, responses),
    ):
        groups = draw_groups(count, n, seed)
        seconds, _ = measure(ours, groups, 3)
        rows.append([count, n, f"{seconds:.2f}", f"{1000 * seconds / count:.2f}", f"{1e6 * seconds / (count * n):.0f}"])
    print_table(["prompts", "n", "CPU s", "CPU ms per group", "CPU µs per answer"], rows)


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description="Cost and outcome of the votes of a step, against other graders.")
    parser.add_argument("--prompts", type=int, default=512, help="groups (%(default)s)")
    parser.add_argument("--responses", type=int, default=16, help="responses per group, n (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="(%(default)s)")
    arguments = parser.parse_args()
    compare(draw_groups(arguments.prompts, arguments.responses, arguments.seed))
    scale(arguments.prompts, arguments.responses, arguments.seed)


if __name__ == "__main__":
    main()
