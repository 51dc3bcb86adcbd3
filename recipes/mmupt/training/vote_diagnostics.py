"""Diagnoses the votes of a run: whether pseudo-labels settle, and on right or wrong answers.

Reads the saved votes (`verl_ext.votes.vote_files`), which cover the same questions in every epoch.

Sources: the flip rate is defined in TTRL-Guard (arXiv 2605.19444), the Model Collapse Step in He et al. 2026
(arXiv 2603.08660).
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from mmupt.reports.tables import markdown_table
from verl_ext.answers import Comparison, equivalent
from verl_ext.votes.vote_files import files_of_steps, read_votes

# The reward accuracy below which a policy has collapsed.
COLLAPSED_ACCURACY = 0.01
# Number of bins of the majority ratio.
BINS = 5


@dataclass(frozen=True)
class Election:
    """The vote on one question in one step.

    Attributes:
        step: training step, counted from 1.
        id: id of the question.
        pseudo_label: the elected answer, None if none was elected.
        majority_ratio: share of the largest class of equal answers.
        label_correct: whether the pseudo-label is right; None without a pseudo-label or ground truth.
        right_share: share of right answers among all voting responses; None without a ground truth.
        choices: options of a multiple-choice question.
    """

    step: int
    id: str
    pseudo_label: str | None
    majority_ratio: float
    label_correct: bool | None = None
    right_share: float | None = None
    choices: Sequence[str] | None = None


def read_elections(folder: Path) -> list[Election]:
    """Read the saved votes in a folder; empty if there is no folder. Raises the errors of `read_votes`."""
    columns = ["step", "id", "choices", "responses.list.element.correct", "pseudo_label", "majority_ratio"]
    columns += ["label_correct"]
    return [_election(row) for file in files_of_steps(folder).values() for row in read_votes(file, columns)]


def _election(row: Mapping[str, Any]) -> Election:
    correct = [response["correct"] for response in row["responses"]]
    return Election(
        row["step"],
        row["id"],
        row["pseudo_label"],
        row["majority_ratio"],
        row["label_correct"],
        None if None in correct or not correct else fmean(correct),
        row["choices"],
    )


class Rate(NamedTuple):
    """A rate: `hits` out of `total`."""

    hits: int
    total: int

    def __str__(self) -> str:
        return f"{100 * self.hits / self.total:.1f} % of {self.total:,}" if self.total else "nothing to compare"


@dataclass(frozen=True)
class CalibrationBin:
    """Votes with a majority ratio from `low` up to `high`: their mean ratio, and the rate of right pseudo-labels."""

    low: float
    high: float
    majority_ratio: float
    right: Rate


@dataclass(frozen=True)
class Diagnostics:
    """Statistics of the votes of a run.

    Attributes:
        elections: number of votes.
        flips: rate of different answers among successive votes on a question that both elected an answer.
        flips_from_right: the same, after a right pseudo-label.
        flips_from_wrong: the same, after a wrong pseudo-label.
        lost_minorities: of the questions whose first vote had right answers but elected a wrong answer or none, the
            rate of questions without right answers in the last vote.
        calibration: label accuracy by majority ratio, without empty bins.
    """

    elections: int
    flips: Rate
    flips_from_right: Rate
    flips_from_wrong: Rate
    lost_minorities: Rate
    calibration: tuple[CalibrationBin, ...]


def diagnose(elections: Iterable[Election], comparison: Comparison = Comparison()) -> Diagnostics:
    """Compute the statistics of votes, comparing successive votes on each question in the order of steps."""
    ordered = sorted(elections, key=lambda election: election.step)
    by_question: dict[str, list[Election]] = defaultdict(list)
    for election in ordered:
        by_question[election.id].append(election)
    flips: dict[bool | None, list[bool]] = defaultdict(list)
    lost: list[bool] = []
    for votes in by_question.values():
        for before, after in pairwise(votes):
            if before.pseudo_label is not None and after.pseudo_label is not None:
                same = equivalent(before.pseudo_label, after.pseudo_label, comparison, before.choices)
                flips[before.label_correct].append(not same)
        first, last = votes[0], votes[-1]
        if len(votes) > 1 and first.right_share and not first.label_correct and last.right_share is not None:
            lost.append(last.right_share == 0)
    return Diagnostics(
        len(ordered),
        _rate([*flips[True], *flips[False], *flips[None]]),
        _rate(flips[True]),
        _rate(flips[False]),
        _rate(lost),
        tuple(_calibration(ordered)),
    )


def model_collapse_step(reward_accuracy: Mapping[int, float]) -> int | None:
    """The first step with a reward accuracy below 1 %, None if there is no such step.

    Args:
        reward_accuracy: step -> reward accuracy.
    """
    return min((step for step, accuracy in reward_accuracy.items() if accuracy < COLLAPSED_ACCURACY), default=None)


def render(diagnostics: Diagnostics, reward_accuracy: Mapping[int, float]) -> str:
    """Return the statistics as Markdown: a table of rates, and a table of label accuracy by majority ratio if known."""
    step = model_collapse_step(reward_accuracy)
    collapse = "none" if step is None else f"step {step}"
    rows: list[tuple[str, ...]] = [
        ("of the votes on file", ""),
        ("flip rate: another answer elected at the next vote on the question", str(diagnostics.flips)),
        ("the same after a right label", str(diagnostics.flips_from_right)),
        ("the same after a wrong label", str(diagnostics.flips_from_wrong)),
        ("right minorities of the first vote without a right answer in the last", str(diagnostics.lost_minorities)),
        (
            f"Model Collapse Step: first with a reward accuracy below {100 * COLLAPSED_ACCURACY:g} %",
            collapse if reward_accuracy else "not known",
        ),
    ]
    tables = [markdown_table(rows)]
    if diagnostics.calibration:
        bins = [
            (f"{bin_.low:.1f} to {bin_.high:.1f}", f"{bin_.majority_ratio:.2f}", str(bin_.right))
            for bin_ in diagnostics.calibration
        ]
        tables.append(markdown_table([("majority ratio", "mean", "right labels"), *bins]))
    return "\n\n".join(tables)


def _calibration(elections: Sequence[Election]) -> Iterator[CalibrationBin]:
    labelled = [election for election in elections if election.label_correct is not None]
    for number in range(BINS):
        # The last bin includes 1.
        members = [election for election in labelled if min(int(election.majority_ratio * BINS), BINS - 1) == number]
        if members:
            yield CalibrationBin(
                number / BINS,
                (number + 1) / BINS,
                fmean(election.majority_ratio for election in members),
                _rate([bool(election.label_correct) for election in members]),
            )


def _rate(values: Sequence[bool]) -> Rate:
    return Rate(sum(values), len(values))
