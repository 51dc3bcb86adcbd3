"""Rounds of self-improvement: reads them from their folders, compares them, and renders a table and a plot.

`mmupt.self_improvement.run_rounds` runs the rounds. Nothing is generated or trained here.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmupt.evaluation.benchmark_scores import GREEDY, groups_of, score_json
from mmupt.evaluation.verdicts import JudgedFile
from mmupt.reports.plots import PERCENT, Panel, Points, draw, palette
from mmupt.reports.tables import markdown_table, plus_minus
from mmupt.training.metric_series import read_series
from mmupt.training.run_report import changes_between, judge_evaluations
from verl_ext.answers import equivalent
from verl_ext.collapse import Collapse, CollapseRule, find_collapse
from verl_ext.files import write_atomically, write_json
from verl_ext.metric_names import LABEL_ACCURACY, MAJORITY_RATIO, MEAN_REWARD
from verl_ext.scores import Score
from verl_ext.votes import vote


@dataclass(frozen=True)
class Round:
    """The results of round `number`, counted from 1, with scores on held-out questions.

    scores: scores of the round's policy, by name. before: the same scores of the policy that the round started from.
    majority_ratios: majority ratio by training step. label_accuracy: mean over training steps; None without ground
    truth. synthesis: statistics of all strategies from `report.json`; None without a synthesis. agreement: see
    `agreement`. writer_rewards: mean reward of the writer by training step; empty if no writer was trained.
    """

    number: int
    scores: Mapping[str, Score]
    before: Mapping[str, Score]
    majority_ratios: Mapping[int, float]
    label_accuracy: float | None
    synthesis: Mapping[str, Any] | None
    agreement: float | None
    writer_rewards: Mapping[int, float]

    @property
    def pass_at_k(self) -> str:
        """The name of the pass@k score, for whichever k was measured."""
        return next(name for name in self.scores if name.startswith("pass@"))


def round_folder(folder: Path, number: int) -> Path:
    """The folder of a round: `synthesis/` holds its questions, `run/` its training."""
    return folder / f"round_{number}"


def read_round(folder: Path, number: int) -> Round:
    """Read a finished round; raises the errors of `mmupt.training.run_report.write_report`."""
    run = round_folder(folder, number) / "run"
    before, after = judge_evaluations(run)
    changes = changes_between(before, after)
    series = read_series(run / "tensorboard")
    report = round_folder(folder, number) / "synthesis" / "report.json"
    writer = round_folder(folder, number) / "writer" / "tensorboard"
    accuracies = list(series.get(LABEL_ACCURACY, {}).values())
    return Round(
        number=number,
        scores={name: change.after for name, change in changes.items()},
        before={name: change.before for name, change in changes.items()},
        majority_ratios=series.get(MAJORITY_RATIO, {}),
        label_accuracy=sum(accuracies) / len(accuracies) if accuracies else None,
        synthesis=json.loads(report.read_text())["strategies"]["all"] if report.is_file() else None,
        agreement=agreement(before, after),
        writer_rewards=read_series(writer, re.compile(re.escape(MEAN_REWARD))).get(MEAN_REWARD, {}),
    )


def agreement(before: JudgedFile, after: JudgedFile) -> float | None:
    """Share of questions with the same elected answer in both evaluations, among those where both elect an answer.

    Votes are over the samples and compare answers as the evaluations do. None if both elect an answer on no question.
    """
    winners = [_winners(judged) for judged in (before, after)]
    common = winners[0].keys() & winners[1].keys()
    same = (
        equivalent(winners[0][id_], winners[1][id_], after.comparison, after.questions[id_].choices) for id_ in common
    )
    return sum(same) / len(common) if common else None


def _winners(judged: JudgedFile) -> dict[str, str]:
    """Answers elected by the samples, by question id; questions without an elected answer are missing."""
    votes = {
        id_: vote(
            [verdict.answer for verdict in group],
            comparison=judged.comparison,
            choices=judged.questions[id_].choices,
        )
        for id_, group in groups_of(judged.verdicts, "sample", judged.questions).items()
    }
    return {id_: found.pseudo_label for id_, found in votes.items() if found.pseudo_label is not None}


def find_collapse_of(rounds: Sequence[Round], rule: CollapseRule) -> Collapse | None:
    """Detect a collapse in the last round by greedy accuracy or pass@k, over the steps of all rounds.

    Unlike the validations of a run, a single round below the best is enough because a round takes many steps.
    """
    if not rounds:
        return None
    ratios: dict[int, float] = {}
    ends: dict[int, Round] = {}
    offset = 0
    for one in rounds:
        ratios |= {offset + step: ratio for step, ratio in one.majority_ratios.items()}
        offset += max(one.majority_ratios, default=1)
        ends[offset] = one
    at_once = replace(rule, patience=1)
    for name in (GREEDY, rounds[0].pass_at_k):
        validations = {0: _by_question(rounds[0].before[name])}
        validations |= {end: _by_question(one.scores[name]) for end, one in ends.items()}
        if found := find_collapse(ratios, validations, at_once, name):
            return found
    return None


def _by_question(score: Score) -> dict[str, float]:
    # All rounds evaluate the same questions in the same order.
    return {str(number): value for number, value in enumerate(score.per_question)}


def best_round(rounds: Sequence[Round]) -> int:
    """The number of the round with the highest greedy accuracy, the earliest of several; 0 for the model before all."""
    accuracy = {0: rounds[0].before[GREEDY].value, **{one.number: one.scores[GREEDY].value for one in rounds}}
    return max(accuracy, key=lambda number: (accuracy[number], -number))


def render(rounds: Sequence[Round]) -> str:
    """The rounds as a Markdown table."""
    names = [name for name in rounds[0].scores if name == GREEDY or "@" in name]
    head = ("round", *(f"{name}, %" for name in names), "majority ratio", "label accuracy, %")
    rows: list[tuple[str, ...]] = [(*head, "questions kept", "different, %", "same answer as before, %")]
    rows.append(("before", *(plus_minus(rounds[0].before[name], 1) for name in names), *[""] * 5))
    for one in rounds:
        written = one.synthesis
        rows.append(
            (
                str(one.number),
                *(plus_minus(one.scores[name], 1) for name in names),
                _first_to_last(one.majority_ratios),
                "" if one.label_accuracy is None else f"{100 * one.label_accuracy:.1f}",
                f"{written['kept']} of {written['candidates']}" if written else "",
                f"{100 * written['distinct_questions']:.1f}" if written and written["distinct_questions"] else "",
                "" if one.agreement is None else f"{100 * one.agreement:.1f}",
            )
        )
    if any(one.writer_rewards for one in rounds):
        added = ("writer's reward", "", *(_first_to_last(one.writer_rewards) for one in rounds))
        rows = [(*row, cell) for row, cell in zip(rows, added, strict=True)]
    return markdown_table(rows)


def _first_to_last(series: Mapping[int, float]) -> str:
    """Format the values of the first and the last step."""
    return f"{series[min(series)]:.2f} → {series[max(series)]:.2f}" if series else ""


def plot(rounds: Sequence[Round]) -> bytes:
    """Draw accuracies by round and the majority ratio by step as a PNG."""
    names = [name for name in rounds[0].scores if name == GREEDY or "@" in name]
    accuracies = []
    for name, color in zip(names, palette(len(names)), strict=True):
        scores = [rounds[0].before[name], *(one.scores[name] for one in rounds)]
        values, errors = [100 * score.value for score in scores], [100 * score.standard_error for score in scores]
        accuracies.append(Points(range(len(scores)), values, name, color, joined=True, y_errors=errors))
    ratios, offset = [], 0
    for one, color in zip(rounds, palette(len(rounds)), strict=True):
        steps = sorted(one.majority_ratios.items())
        x, y = [offset + step for step, _ in steps], [ratio for _, ratio in steps]
        ratios.append(Points(x, y, f"round {one.number}", color, marker="", joined=True))
        offset += max(one.majority_ratios, default=0)
    held_out = "accuracy on held-out questions, %"
    return draw(
        [
            Panel("", accuracies, x_label="round", y_label=held_out, y_limits=PERCENT, whole_x=True),
            Panel("", ratios, x_label="training step", y_label="majority ratio", y_limits=(0, 1.05)),
        ],
        columns=2,
        size=(10, 3.6),
    )


def write_rounds(folder: Path, rounds: Sequence[Round], stopped: Collapse | None = None) -> str:
    """Write `rounds.md`, `rounds.json` and `rounds.png` into the folder of all rounds, and return the text."""
    best = best_round(rounds)
    lines = [render(rounds), f"The best policy is {f'that of round {best}' if best else 'the one before all rounds'}."]
    if stopped:
        lines.append(f"It was stopped after round {rounds[-1].number}: {stopped}.")
    lines.append(
        "± is one standard error over questions. Majority ratio: first and last step of a round.\nSame answer as "
        "before: of the held-out questions on which the samples elect an answer both before and after the round."
    )
    text = "\n\n".join(lines)
    content = {
        "best_round": best,
        "stopped": None if stopped is None else str(stopped),
        "rounds": [
            {
                "round": one.number,
                "scores": {name: score_json(score) for name, score in one.scores.items()},
                "majority_ratios": sorted(one.majority_ratios.items()),
                "label_accuracy": one.label_accuracy,
                "synthesis": one.synthesis,
                "agreement": one.agreement,
                "writer_rewards": sorted(one.writer_rewards.items()),
            }
            for one in rounds
        ],
    }
    write_atomically(folder / "rounds.png", plot(rounds))
    write_json(folder / "rounds.json", content)
    picture = "![Accuracies over rounds, majority ratio over steps](rounds.png)"
    write_atomically(folder / "rounds.md", f"# {folder.resolve().name}\n\n{text}\n\n{picture}\n")
    return text
