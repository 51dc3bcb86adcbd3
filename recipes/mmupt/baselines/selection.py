"""Which responses each method keeps. Pure functions.

Answers are compared and counted by `verl_ext.answers` and `verl_ext.votes`, as in MM-UPT. Responses of a group are
identified by the number they were sampled under; results depend neither on their order nor on how answers are written.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import NamedTuple

from verl_ext.answers import Comparison, classify, correct, verdict_in
from verl_ext.votes import VoteOptions, vote

MOST_POINTS = 5.0
_POINTS = re.compile(r"\bscore\b[\s*_]*[:=]?[\s*_]*(\d{1,3}(?:\.\d{1,3})?)(?![\d.]*\d)", re.IGNORECASE)


@dataclass(frozen=True)
class Sample:
    """One response of a group: `number` counts from 0, `answer` is the extracted answer, None without one."""

    number: int
    response: str
    answer: str | None


class SelectedResponse(NamedTuple):
    """A response to train on, and its score by the method; None if the method has none."""

    sample: Sample
    score: float | None


class SelectedPair(NamedTuple):
    """A preferred and a dispreferred response."""

    chosen: SelectedResponse
    rejected: SelectedResponse


def right(
    group: Sequence[Sample],
    truth: str | None,
    comparison: Comparison = Comparison(),
    choices: Sequence[str] | None = None,
) -> list[SelectedResponse]:
    """Rejection sampling (Yuan et al. 2023, arXiv 2308.01825): the responses that match the ground truth.

    Empty without a ground truth.
    """
    kept = [one for one in group if correct(one.answer, truth, comparison, choices)]
    return [SelectedResponse(one, 1.0) for one in _by_number(kept)]


def agreeing(
    group: Sequence[Sample],
    options: VoteOptions = VoteOptions(),
    comparison: Comparison = Comparison(),
    choices: Sequence[str] | None = None,
) -> list[SelectedResponse]:
    """LMSI (Huang et al. 2022, arXiv 2210.11610): the responses that agree with the majority, scored by its share.

    Empty if no answer is elected: the majority is below `options.min_share`, or, by default, tied or a single
    vote.
    """
    ordered = _by_number(group)
    outcome = vote([one.answer for one in ordered], replace(options, reward="hard"), comparison, choices)
    return [
        SelectedResponse(one, outcome.majority_ratio)
        for one, elected in zip(ordered, outcome.rewards, strict=True)
        if elected
    ]


def best_and_worst(group: Sequence[Sample], scores: Mapping[int, float | None]) -> SelectedPair | None:
    """Self-rewarding (Yuan et al. 2024, arXiv 2401.10020): the responses with the highest and the lowest judge score.

    Responses without an answer or a score are ignored. None if all scores are equal. Among equal scores the lowest
    number wins.
    """
    scored: list[tuple[Sample, float]] = []
    for one in _by_number(group):
        if one.answer is not None and (score := scores.get(one.number)) is not None:
            scored.append((one, score))
    if not scored:
        return None
    best, worst = max(scored, key=lambda one: one[1]), min(scored, key=lambda one: one[1])
    return SelectedPair(SelectedResponse(*best), SelectedResponse(*worst)) if best[1] > worst[1] else None


def believed(group: Sequence[Sample], scores: Mapping[int, float | None], min_yes: float) -> list[SelectedResponse]:
    """Genixer (Zhao et al. 2023, arXiv 2312.06731): the responses whose answers the model affirms.

    `scores` has the probability of a yes by number; it must exceed `min_yes`.
    """
    kept = []
    for one in _by_number(group):
        if one.answer is not None and (score := scores.get(one.number)) is not None and score > min_yes:
            kept.append(SelectedResponse(one, score))
    return kept


def description_pair(preferred: str, dispreferred: str) -> SelectedPair | None:
    """STIC (Deng et al. 2024, arXiv 2405.19716): a description by a good prompt against one by a bad prompt or of a
    corrupted image. None if one is empty or both are equal.
    """
    chosen, rejected = preferred.strip(), dispreferred.strip()
    if not (chosen and rejected) or chosen.split() == rejected.split():
        return None
    return SelectedPair(
        SelectedResponse(Sample(0, chosen, None), None), SelectedResponse(Sample(0, rejected, None), None)
    )


def different_answers(
    group: Sequence[Sample], comparison: Comparison = Comparison(), choices: Sequence[str] | None = None
) -> dict[int, str]:
    """The representative of the answer class of every response with an answer, by number."""
    ordered = _by_number(group)
    classes = classify([one.answer for one in ordered], comparison, choices)
    return {
        ordered[position].number: answer
        for members, answer in zip(classes.members, classes.answers, strict=True)
        for position in members
    }


def mean_points(replies: Sequence[str]) -> float | None:
    """The mean of the points, 0 to 5, at the end of judge replies: "Score: 4"; None if no reply has any.

    >>> mean_points(["It is relevant. Score: 3", "**Score:** 4.", "Score: 17", "no idea"])
    3.5
    """
    points = [float(found[-1]) for reply in replies if (found := _POINTS.findall(reply))]
    return fmean(given) if (given := [one for one in points if one <= MOST_POINTS]) else None


def share_of_yes(replies: Sequence[str]) -> float | None:
    """The share of replies whose verdict is yes, an estimate of its probability; None without replies.

    A reply with neither yes nor no counts as not yes.

    >>> share_of_yes(["3 + 4 = 7 . 7 - 7 = 0 . yes", "Yes, it is.", "no", "perhaps"])
    0.5
    """
    return fmean(verdict_in(reply) == "yes" for reply in replies) if replies else None


def _by_number(group: Sequence[Sample]) -> list[Sample]:
    return sorted(group, key=lambda one: one.number)
