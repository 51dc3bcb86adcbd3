"""Selection of the responses that each method keeps. Pure functions.

`verl_ext.answers` and `verl_ext.votes` compare and count answers, as in MM-UPT. The sample number identifies a response
within its group; results depend neither on the order of responses nor on how equal answers are written.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter, itemgetter
from statistics import fmean
from typing import NamedTuple

from verl_ext.answers import Comparison, classify, correct, verdict_in
from verl_ext.votes import VoteOptions, vote

MOST_POINTS = 5.0
_POINTS = re.compile(r"\bscore\b[\s*_]*[:=]?[\s*_]*(\d{1,3}(?:\.\d{1,3})?)(?![\d.]*\d)", re.IGNORECASE)


@dataclass(frozen=True)
class Sample:
    """A response of a group: `number` counts from 0; `answer` is the extracted answer, None if there is none."""

    number: int
    response: str
    answer: str | None


class SelectedResponse(NamedTuple):
    """A response to train on, with the score that the method gave it; None if the method gives no scores."""

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
    """Rejection sampling (Yuan et al. 2023, arXiv 2308.01825): select the responses that match the ground truth.

    Selects nothing if there is no ground truth.
    """
    return [
        SelectedResponse(sample, 1.0)
        for sample in _by_number(group)
        if correct(sample.answer, truth, comparison, choices)
    ]


def agreeing(
    group: Sequence[Sample],
    options: VoteOptions = VoteOptions(),
    comparison: Comparison = Comparison(),
    choices: Sequence[str] | None = None,
) -> list[SelectedResponse]:
    """LMSI (Huang et al. 2022, arXiv 2210.11610): select the responses that agree with the majority.

    Their score is the majority ratio. Selects nothing if no answer is elected: the majority is below
    `options.min_share` or, by default, tied or a single vote.
    """
    ordered = _by_number(group)
    outcome = vote([sample.answer for sample in ordered], replace(options, reward="hard"), comparison, choices)
    return [
        SelectedResponse(sample, outcome.majority_ratio)
        for sample, reward in zip(ordered, outcome.rewards, strict=True)
        if reward
    ]


def best_and_worst(group: Sequence[Sample], scores: Mapping[int, float | None]) -> SelectedPair | None:
    """Self-rewarding (Yuan et al. 2024, arXiv 2401.10020): pair the responses with the highest and lowest judge scores.

    Responses without an answer or a score are ignored. Ties go to the lowest sample number. None if all scores are
    equal.
    """
    scored = _scored(group, scores)
    if not scored:
        return None
    best, worst = max(scored, key=itemgetter(1)), min(scored, key=itemgetter(1))
    return SelectedPair(SelectedResponse(*best), SelectedResponse(*worst)) if best[1] > worst[1] else None


def believed(group: Sequence[Sample], scores: Mapping[int, float | None], min_yes: float) -> list[SelectedResponse]:
    """Genixer (Zhao et al. 2023, arXiv 2312.06731): select the responses whose answers the model affirms.

    `scores` maps sample numbers to the probability of a yes, which must exceed `min_yes`.
    """
    return [SelectedResponse(sample, score) for sample, score in _scored(group, scores) if score > min_yes]


def description_pair(preferred: str, dispreferred: str) -> SelectedPair | None:
    """STIC (Deng et al. 2024, arXiv 2405.19716): pair a description by a good prompt with one by a bad prompt or of a
    corrupted image. None if a description is empty or both are equal.
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
    """Map the number of every response with an answer to the representative of its answer class."""
    ordered = _by_number(group)
    classes = classify([sample.answer for sample in ordered], comparison, choices)
    return {
        ordered[position].number: answer
        for members, answer in zip(classes.members, classes.answers, strict=True)
        for position in members
    }


def mean_points(replies: Sequence[str]) -> float | None:
    """Average the points, 0 to 5, at the end of judge replies ("Score: 4"); None if no reply has any.

    >>> mean_points(["It is relevant. Score: 3", "**Score:** 4.", "Score: 17", "no idea"])
    3.5
    """
    last = [float(matches[-1]) for reply in replies if (matches := _POINTS.findall(reply))]
    return fmean(points) if (points := [value for value in last if value <= MOST_POINTS]) else None


def share_of_yes(replies: Sequence[str]) -> float | None:
    """Estimate the probability of a yes as the share of replies with that verdict; None without replies.

    A reply with neither yes nor no counts as not yes.

    >>> share_of_yes(["3 + 4 = 7 . 7 - 7 = 0 . yes", "Yes, it is.", "no", "perhaps"])
    0.5
    """
    return fmean(verdict_in(reply) == "yes" for reply in replies) if replies else None


def _by_number(group: Sequence[Sample]) -> list[Sample]:
    return sorted(group, key=attrgetter("number"))


def _scored(group: Sequence[Sample], scores: Mapping[int, float | None]) -> list[tuple[Sample, float]]:
    """The responses with an answer and a score, with their scores, by number."""
    return [
        (sample, score)
        for sample in _by_number(group)
        if sample.answer is not None and (score := scores.get(sample.number)) is not None
    ]
