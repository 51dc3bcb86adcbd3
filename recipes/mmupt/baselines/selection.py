"""What each method keeps of what the model said, and what it drops: pure functions, which ask nobody anything.

Answers are compared and counted by `verl_ext.answers` and `verl_ext.votes`, as in MM-UPT itself. A response is told
from the others of its group by its number, which is drawn with it and says nothing about it: no order in which
responses are given, and no name of an answer, decides anything.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import NamedTuple

from mmupt.synthesis.filters import verdict_in
from verl_ext.answers import Comparison, classify, correct
from verl_ext.votes import VotePolicy, vote

MOST_POINTS = 5.0
_POINTS = re.compile(r"\bscore\b[\s*_]*[:=]?[\s*_]*(\d{1,3}(?:\.\d{1,3})?)(?![\d.]*\d)", re.IGNORECASE)


@dataclass(frozen=True)
class Sample:
    """One response of a group: `number` counts them from 0, `answer` is what it answers, None for nothing."""

    number: int
    response: str
    answer: str | None


class Kept(NamedTuple):
    """A response to train on, and what the method thinks of it; None where it has no opinion."""

    sample: Sample
    score: float | None


class Pair(NamedTuple):
    """Two responses, of which the first is to become more likely than the second."""

    chosen: Kept
    rejected: Kept


def right(
    group: Sequence[Sample],
    truth: str | None,
    comparison: Comparison = Comparison(),
    choices: Sequence[str] | None = None,
) -> list[Kept]:
    """Rejection sampling (Yuan et al. 2023, arXiv 2308.01825): the responses that are right by label.

    None of them where the truth is not known.
    """
    kept = [one for one in group if correct(one.answer, truth, comparison, choices)]
    return [Kept(one, 1.0) for one in _by_number(kept)]


def agreeing(
    group: Sequence[Sample],
    policy: VotePolicy = VotePolicy(),
    comparison: Comparison = Comparison(),
    choices: Sequence[str] | None = None,
) -> list[Kept]:
    """LMSI (Huang et al. 2022, arXiv 2210.11610): the responses that agree with the majority, scored by its share.

    None of them where the majority is smaller than `policy.min_share`, the confidence, or where the policy elects
    nobody else: by its defaults after a tie, and where no two responses agree.
    """
    ordered = _by_number(group)
    outcome = vote([one.answer for one in ordered], replace(policy, reward="hard"), comparison, choices)
    return [Kept(one, outcome.share) for one, elected in zip(ordered, outcome.rewards, strict=True) if elected]


def best_and_worst(group: Sequence[Sample], scores: Mapping[int, float | None]) -> Pair | None:
    """Self-rewarding (Yuan et al. 2024, arXiv 2401.10020): the response that the judge scores highest, and the lowest.

    Responses without an answer, and those for whose number there is no score, are in no pair. There is none where all
    scores are the same. Of several that are scored alike, that with the lowest number stands for them.
    """
    scored: list[tuple[Sample, float]] = []
    for one in _by_number(group):
        if one.answer is not None and (score := scores.get(one.number)) is not None:
            scored.append((one, score))
    if not scored:
        return None
    best, worst = max(scored, key=lambda one: one[1]), min(scored, key=lambda one: one[1])
    return Pair(Kept(*best), Kept(*worst)) if best[1] > worst[1] else None


def believed(group: Sequence[Sample], scores: Mapping[int, float | None], min_yes: float) -> list[Kept]:
    """Genixer (Zhao et al. 2023, arXiv 2312.06731): the responses of whose answers the model itself says that they are
    true for the image with a probability above `min_yes`; `scores` has it by number.
    """
    kept = []
    for one in _by_number(group):
        if one.answer is not None and (score := scores.get(one.number)) is not None and score > min_yes:
            kept.append(Kept(one, score))
    return kept


def description_pair(preferred: str, dispreferred: str) -> Pair | None:
    """STIC (Deng et al. 2024, arXiv 2405.19716): the description of the image itself, from a good prompt, against one
    from a bad prompt or a spoilt image. None where one of them is empty, or where they say the same.
    """
    chosen, rejected = preferred.strip(), dispreferred.strip()
    if not (chosen and rejected) or chosen.split() == rejected.split():
        return None
    return Pair(Kept(Sample(0, chosen, None), None), Kept(Sample(0, rejected, None), None))


def different_answers(
    group: Sequence[Sample], comparison: Comparison = Comparison(), choices: Sequence[str] | None = None
) -> dict[int, str]:
    """For the number of every response with an answer, the one answer that stands for all that are equal to its own."""
    ordered = _by_number(group)
    classes = classify([one.answer for one in ordered], comparison, choices)
    return {
        ordered[position].number: answer
        for members, answer in zip(classes.members, classes.answers, strict=True)
        for position in members
    }


def mean_points(replies: Sequence[str]) -> float | None:
    """The mean of the points, 0 to 5, that judges give at the end of their replies: "Score: 4".

    None where no reply gives any.

    >>> mean_points(["It is relevant. Score: 3", "**Score:** 4.", "Score: 17", "no idea"])
    3.5
    """
    points = [float(found[-1]) for reply in replies if (found := _POINTS.findall(reply))]
    return fmean(given) if (given := [one for one in points if one <= MOST_POINTS]) else None


def share_of_yes(replies: Sequence[str]) -> float | None:
    """The share of replies whose verdict is yes, an estimate of the probability of such a reply; None for no replies.

    A reply that says neither yes nor no does not say yes.

    >>> share_of_yes(["3 + 4 = 7 . 7 - 7 = 0 . yes", "Yes, it is.", "no", "perhaps"])
    0.5
    """
    return fmean(verdict_in(reply) == "yes" for reply in replies) if replies else None


def _by_number(group: Sequence[Sample]) -> list[Sample]:
    return sorted(group, key=lambda one: one.number)
