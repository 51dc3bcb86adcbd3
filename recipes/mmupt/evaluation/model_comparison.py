"""Compares two models, A and B, on the same questions: differences, their uncertainty, questions gained and lost.

All differences are paired by question. `mmupt.evaluation.comparison_report` formats the results.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import comb
from statistics import fmean
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from mmupt.benchmarks import BENCHMARKS, Question
from mmupt.evaluation.benchmark_scores import (
    accuracy_of,
    groups_of,
    labelled,
    per_sample,
    responses_per_question,
    right_by,
)
from mmupt.evaluation.response_files import Mode
from mmupt.evaluation.verdicts import JudgedFile, Verdict
from verl_ext.answers import Comparison
from verl_ext.scores import Score

# The unit of resampling. We-Math's strict and loose scores are means over problems of several questions.
Unit = Literal["questions", "problems"]
Pair = tuple[dict[str, list[Verdict]], dict[str, list[Verdict]]]

RESAMPLES = 10_000
SEED = 0
LEVEL = 0.95
# Random numbers per draw; 4 million take 32 MB.
DRAWN_AT_ONCE = 4_000_000
# Sums of thirds that are exactly 0 may deviate from 0 in floating point; the smallest true difference is
# 1 / (k questions).
ROUNDING = 1e-9
EXAMPLES = 100
# Parameters that are expected to differ, and the data, which are checked separately.
NOT_COMPARED = frozenset({"model", "weights", "data"})


@dataclass(frozen=True)
class PairedScore:
    """One score of both models over the same units.

    `interval` contains the difference B - A in LEVEL of the resamples; `not_better` is the share of resamples without a
    gain.
    """

    name: str
    unit: Unit
    a: Score
    b: Score
    interval: tuple[float, float]
    not_better: float

    @property
    def difference(self) -> Score:
        """B - A, unit by unit."""
        return self.b - self.a


class ChangedQuestion(NamedTuple):
    """A question that changed, with a verdict on one response of each model, if possible one wrong and one right."""

    question: Question
    a: Verdict
    b: Verdict


@dataclass(frozen=True)
class Changes:
    """The questions by how often each model is right about them; `score` names the rule and the mode.

    `gained` and `lost` are the ids of questions that B answers right more often or less often than A, with up to
    EXAMPLES of each. The others are counted: right or wrong in all responses of both, or equally often in part.
    """

    score: str
    gained: tuple[str, ...]
    lost: tuple[str, ...]
    both_right: int
    both_wrong: int
    equal_in_part: int
    gained_examples: tuple[ChangedQuestion, ...]
    lost_examples: tuple[ChangedQuestion, ...]

    @property
    def p_value(self) -> float:
        """The p-value of an exact two-sided McNemar test, that is, a sign test of the questions that changed."""
        return sign_test(len(self.gained), len(self.lost))


@dataclass(frozen=True)
class ModelComparison:
    """A comparison of two files of responses on one benchmark.

    questions: ids of the questions compared.
    only_a, only_b: ids of the questions that only one model answered.
    incomplete: ids of the questions with fewer responses than others.
    other_numbers: responses per question of A and of B, for modes that are not compared because these differ.
    parameters: values of A and of B for parameters that differ.
    """

    benchmark: str
    a: JudgedFile
    b: JudgedFile
    questions: tuple[str, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    incomplete: tuple[str, ...]
    other_numbers: dict[Mode, tuple[int, int]]
    parameters: dict[str, tuple[Any, Any]]
    scores: tuple[PairedScore, ...]
    changes: Changes


def compare(benchmark: str, a: JudgedFile, b: JudgedFile) -> ModelComparison:
    """Compare two judged files on the questions of a benchmark that both answer, in any order of lines.

    Raises:
        ValueError: the files answer different data, have fewer than two questions in common, have no mode with the same
            number of responses, or no rule judged both.
    """
    _check_data(a, b)
    verdicts = [
        [verdict for verdict in side.verdicts if side.questions[verdict.response.id].data_source == benchmark]
        for side in (a, b)
    ]
    answered_a, answered_b = ({verdict.response.id for verdict in of_side} for of_side in verdicts)
    common = sorted(answered_a & answered_b)
    names = f"{a.file} and {b.file}"
    if len(common) < 2:
        raise ValueError(f"{names} have {len(common)} common questions of {benchmark}: a comparison takes two at least")
    for id_ in common:
        of_a, of_b = a.questions[id_], b.questions[id_]
        if (of_a.truth, of_a.choices) != (of_b.truth, of_b.choices):
            raise ValueError(f"{names}: the ground truth or the options of question {id_!r} differ between their data")
    pairs: dict[Mode, Pair] = {
        mode: (groups_of(verdicts[0], mode, common), groups_of(verdicts[1], mode, common)) for mode in get_args(Mode)
    }
    numbers = {
        mode: (responses_per_question(of_a), responses_per_question(of_b)) for mode, (of_a, of_b) in pairs.items()
    }
    modes = [mode for mode, (of_a, of_b) in numbers.items() if of_a == of_b > 0]
    if not modes:
        raise ValueError(f"{names} have no mode with the same number of responses per question: {numbers}")
    ids = [id_ for id_ in common if all(id_ in groups for mode in modes for groups in pairs[mode])]
    if len(ids) < 2:
        raise ValueError(
            f"{names} have {len(ids)} common questions with all responses: a comparison takes two at least"
        )
    groups_a, groups_b = ({mode: {id_: pairs[mode][side][id_] for id_ in ids} for mode in modes} for side in (0, 1))
    rules = [rule for rule in verdicts[0][0].right if rule in verdicts[1][0].right]
    if not rules:
        raise ValueError(
            f"{names} compare answers by {a.comparison.rule} and by {b.comparison.rule}, so that no rule judges both: "
            "name one for both by --rule"
        )
    return ModelComparison(
        benchmark,
        a,
        b,
        tuple(ids),
        tuple(sorted(answered_a - answered_b)),
        tuple(sorted(answered_b - answered_a)),
        tuple(id_ for id_ in common if id_ not in set(ids)),
        {mode: both for mode, both in numbers.items() if mode not in modes and any(both)},
        _differing(a.parameters, b.parameters),
        _paired_scores(benchmark, rules, groups_a, groups_b, a.questions, a.comparison),
        changes(rules[0], modes[0], groups_a[modes[0]], groups_b[modes[0]], a.questions),
    )


def changes(
    rule: str,
    mode: Mode,
    a: Mapping[str, Sequence[Verdict]],
    b: Mapping[str, Sequence[Verdict]],
    questions: Mapping[str, Question],
) -> Changes:
    """Find the questions gained and lost. `a` and `b` have the same questions in the same order, with equally many
    responses."""
    right_a, right_b = (dict(zip(a, map(fmean, right_by(groups, rule)), strict=True)) for groups in (a, b))
    gained = tuple(id_ for id_ in a if right_b[id_] > right_a[id_])
    lost = tuple(id_ for id_ in a if right_b[id_] < right_a[id_])
    unchanged = [right_a[id_] for id_ in a if right_a[id_] == right_b[id_]]

    def examples(ids: Sequence[str], b_is_right: bool) -> tuple[ChangedQuestion, ...]:
        # A generator per list, so that swapping A and B draws the same questions.
        drawn = sorted(random.Random(SEED).sample(ids, min(EXAMPLES, len(ids))))
        return tuple(
            ChangedQuestion(questions[id_], _first(a[id_], rule, not b_is_right), _first(b[id_], rule, b_is_right))
            for id_ in drawn
        )

    k = responses_per_question(a)
    return Changes(
        f"{rule}, greedy" if mode == "greedy" else f"{rule}, mean@{k}",
        gained,
        lost,
        both_right=unchanged.count(1.0),
        both_wrong=unchanged.count(0.0),
        equal_in_part=sum(0 < share < 1 for share in unchanged),
        gained_examples=examples(gained, True),
        lost_examples=examples(lost, False),
    )


def bootstrap(differences: np.ndarray) -> np.ndarray:
    """Compute the mean differences of scores in RESAMPLES samples of units, drawn with replacement.

    `differences` is (units, scores); returns (RESAMPLES, scores). The draws are the same for all scores and depend only
    on the number of units.
    """
    units = len(differences)
    generator = np.random.default_rng(SEED)
    at_once = max(1, DRAWN_AT_ONCE // units)
    means = []
    for first in range(0, RESAMPLES, at_once):
        rows = min(at_once, RESAMPLES - first)
        drawn = generator.integers(units, size=(rows, units)) + units * np.arange(rows)[:, None]
        times = np.bincount(drawn.ravel(), minlength=rows * units).reshape(rows, units)
        means.append(times @ differences / units)
    return np.concatenate(means)


def sign_test(gained: int, lost: int) -> float:
    """The exact two-sided p-value of gains and losses that are equally likely."""
    changed, fewer = gained + lost, min(gained, lost)
    return min(1.0, 2 * sum(comb(changed, count) for count in range(fewer + 1)) / 2**changed)


def _paired_scores(
    benchmark: str,
    rules: Sequence[str],
    a: Mapping[Mode, dict[str, list[Verdict]]],
    b: Mapping[Mode, dict[str, list[Verdict]]],
    questions: Mapping[str, Question],
    comparison: Comparison,
) -> tuple[PairedScore, ...]:
    by_question = [
        labelled(accuracy_of(rules, side.get("greedy", {}), side.get("sample", {}), questions, comparison))
        for side in (a, b)
    ]
    by_problem = [_problem_scores(benchmark, rules[0], next(iter(side.values())), questions) for side in (a, b)]
    return (*_paired("questions", *by_question), *_paired("problems", *by_problem))


def _problem_scores(
    benchmark: str, rule: str, groups: Mapping[str, Sequence[Verdict]], questions: Mapping[str, Question]
) -> dict[str, Score]:
    """Scores that are means over problems, by name, averaged over samples; empty if the benchmark has none."""
    problem_scores = BENCHMARKS[benchmark].problem_scores if benchmark in BENCHMARKS else None
    if problem_scores is None:
        return {}
    samples = per_sample(problem_scores, groups, rule, questions)
    return {
        f"{rule}, {name}": Score(tuple(fmean(sample[name][problem] for sample in samples) for problem in by_problem))
        for name, by_problem in samples[0].items()
        if len(by_problem) > 1
    }


def _paired(unit: Unit, a: Mapping[str, Score], b: Mapping[str, Score]) -> list[PairedScore]:
    names = [name for name in a if name in b]
    if not names:
        return []
    means = bootstrap(np.array([(b[name] - a[name]).per_question for name in names]).T)
    lows, highs = np.quantile(means, ((1 - LEVEL) / 2, (1 + LEVEL) / 2), axis=0).tolist()
    not_better = (means <= ROUNDING).mean(axis=0).tolist()
    return [
        PairedScore(name, unit, a[name], b[name], (low, high), share)
        for name, low, high, share in zip(names, lows, highs, not_better, strict=True)
    ]


def _first(verdicts: Sequence[Verdict], rule: str, right: bool) -> Verdict:
    return next((verdict for verdict in verdicts if verdict.right[rule] == right), verdicts[0])


def _check_data(a: JudgedFile, b: JudgedFile) -> None:
    # One file may answer several data sets and the other only one of them.
    of_a, of_b = ({print_ for print_ in dict(side.parameters["data"]).values() if print_} for side in (a, b))
    if of_a and of_b and not (of_a <= of_b or of_b <= of_a):
        raise ValueError(
            f"{a.file} and {b.file} answer other data by the fingerprints in their parameters "
            f"({', '.join(a.parameters['data'])} against {', '.join(b.parameters['data'])}): answer the same files"
        )


def _differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    names = dict.fromkeys((*a, *b))
    return {
        name: (a.get(name), b.get(name)) for name in names if name not in NOT_COMPARED and a.get(name) != b.get(name)
    }
