"""Scores of k responses per question: one number per question, their mean and its standard error.

Standard errors are over questions (clustered: responses are averaged within each question first, arXiv 2411.00640).
Greedy accuracy is `mean_at_k` with one response per question.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb, log, sqrt
from statistics import fmean, stdev
from typing import Any

from verl_ext.answers import Comparison, classify, correct
from verl_ext.votes import vote


@dataclass(frozen=True)
class Score:
    """A mean over questions. `per_question` holds one number per question, for at least two questions.

    `after - before` is the score of the paired differences; both need the same questions in the same order.

    Raises:
        ValueError: fewer than two questions, or a difference between different numbers of questions.
    """

    per_question: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.per_question) < 2:
            raise ValueError(f"a standard error needs at least two questions, got {len(self.per_question)}")

    @property
    def value(self) -> float:
        """The mean over questions."""
        return fmean(self.per_question)

    @property
    def standard_error(self) -> float:
        """Standard error of the mean: s / sqrt(questions), with the unbiased standard deviation s over questions."""
        return stdev(self.per_question) / sqrt(self.questions)

    @property
    def questions(self) -> int:
        """Number of questions."""
        return len(self.per_question)

    def __sub__(self, other: "Score") -> "Score":
        if self.questions != other.questions:
            raise ValueError(
                f"a paired difference needs the same questions, got {self.questions} and {other.questions}"
            )
        return Score(tuple(a - b for a, b in zip(self.per_question, other.per_question, strict=True)))


def average(scores: Sequence[Score]) -> Score:
    """Average the scores of several runs question by question; all runs need the same questions in the same order.

    The standard error is still over questions, with the runs held fixed.

    Raises:
        ValueError: no score, or different numbers of questions.
    """
    if len({score.questions for score in scores}) != 1:
        raise ValueError(f"an average needs the same questions, got {[score.questions for score in scores]}")
    return Score(tuple(map(fmean, zip(*(score.per_question for score in scores), strict=True))))


# Option texts of each question, None for a question without options; None if no question has options.
Choices = Sequence[Sequence[str] | None] | None


def mean_at_k(correct: Sequence[Sequence[bool]]) -> Score:
    """mean@k: the share of correct responses per question. `correct` is question x response, k per question.

    Raises:
        ValueError: questions have different numbers of responses or none, or there are fewer than two questions.
    """
    _responses_each(correct)
    return Score(tuple(fmean(question) for question in correct))


def maj_at_k(
    answers: Sequence[Sequence[str | None]],
    truths: Sequence[str],
    comparison: Comparison = Comparison(),
    choices: Choices = None,
) -> Score:
    """maj@k: 1 if the k answers to a question elect the correct answer, else 0, including if they elect none.

    The vote is the training vote with the default `VoteOptions`, even if a recipe sets others: a tie elects no answer.
    `answers` is question x response, None for a response without an answer.

    Raises:
        ValueError: k is 1, which elects no answer; `truths` or `choices` do not have one entry per question; the errors
            of `mean_at_k`.
    """
    choices = [None] * len(answers) if choices is None else choices
    if not len(answers) == len(truths) == len(choices):
        raise ValueError(
            f"{len(answers)} questions have {len(truths)} ground truths and {len(choices)} lists of options"
        )
    if _responses_each(answers) < 2:
        raise ValueError("maj@k needs at least two responses per question, got 1")
    winners = [
        vote(group, comparison=comparison, choices=options).pseudo_label
        for group, options in zip(answers, choices, strict=True)
    ]
    return Score(
        tuple(
            float(correct(winner, truth, comparison, options))
            for winner, truth, options in zip(winners, truths, choices, strict=True)
        )
    )


def pass_at_k(correct: Sequence[Sequence[bool]], k: int) -> Score:
    """pass@k: the probability that k of a question's n responses, drawn without replacement, include a correct one.

    1 - C(n - c, k) / C(n, k) with c correct responses is an unbiased estimate of the probability that k new responses
    include a correct one (Chen et al. 2021, arXiv 2107.03374, section 2.1). `correct` is question x response, n per
    question.

    Raises:
        ValueError: k is not between 1 and n; the errors of `mean_at_k`.
    """
    n = _responses_each(correct)
    if not 1 <= k <= n:
        raise ValueError(f"pass@k needs a k from 1 to the number of responses per question, {n}, got {k}")
    return Score(tuple(1 - comb(n - sum(question), k) / comb(n, k) for question in correct))


def semantic_entropy(
    answers: Sequence[Sequence[str | None]], comparison: Comparison = Comparison(), choices: Choices = None
) -> Score:
    """Semantic entropy: the entropy of a question's classes of equal answers, in nats; 0 if all answers are equal.

    -sum p log p, where p is a class's share of the k responses (the discrete form of Farquhar et al. 2024, Nature 630;
    EMPO, arXiv 2504.05812). Responses without an answer form one class. `answers` is question x response.

    Raises:
        ValueError: `choices` does not have one entry per question; the errors of `mean_at_k`.
    """
    choices = [None] * len(answers) if choices is None else choices
    k = _responses_each(answers)
    entropies = []
    for group, options in zip(answers, choices, strict=True):
        sizes = [len(members) for members in classify(group, comparison, options).members]
        sizes.append(k - sum(sizes))
        entropies.append(sum(size / k * log(k / size) for size in sizes if size))
    return Score(tuple(entropies))


def _responses_each(questions: Sequence[Sequence[Any]]) -> int:
    numbers = sorted({len(question) for question in questions})
    if len(numbers) != 1 or numbers[0] == 0:
        raise ValueError(f"every question needs the same number of responses, at least one, got {numbers}")
    return numbers[0]
