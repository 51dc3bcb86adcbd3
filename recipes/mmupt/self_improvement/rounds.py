"""What the rounds of a self-improvement were: read from their folders, compared, and put into a table and a plot.

`mmupt.self_improvement.self_improve` makes the rounds. Nothing is generated or trained here.
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmupt.evaluation.response_files import read_whole
from mmupt.reports.rendering import TEXT_COLOR, aligned, as_png, tidy
from mmupt.training.run_report import GREEDY, read_changes, read_series
from verl_ext.answers import equivalent, extract_answer
from verl_ext.collapse import Collapse, CollapseRule, find_collapse
from verl_ext.files import write_atomically, write_json
from verl_ext.scores import Score
from verl_ext.votes import vote

SHARE = "vote/majority_ratio"
PSEUDO_LABELS = "vote/label_accuracy"


@dataclass(frozen=True)
class Round:
    """One round: `number`, counted from 1; its training, and the policy that it left, on held-out questions.

    scores: of the policy, by name. before: the same of the policy that the round started from. shares: vote share by
    training step of the round. pseudo_label_accuracy: mean over its steps, None where no truth is known. synthesis: the
    figures of `report.json` for all strategies, None where nothing was written. agreement: share of held-out questions
    on which both policies elect the same answer, of those on which both elect one.
    """

    number: int
    scores: Mapping[str, Score]
    before: Mapping[str, Score]
    shares: Mapping[int, float]
    pseudo_label_accuracy: float | None
    synthesis: Mapping[str, Any] | None
    agreement: float | None

    @property
    def pass_at_k(self) -> str:
        """The name of that score, whatever its k."""
        return next(name for name in self.scores if name.startswith("pass@"))


def round_folder(folder: Path, number: int) -> Path:
    """Where a round lies: `synthesis/`, what it wrote, and `run/`, its training."""
    return folder / f"round_{number}"


def read_round(folder: Path, number: int) -> Round:
    """Read a round that is finished.

    Raises:
        FileNotFoundError, ValueError: as `mmupt.training.run_report.read_changes`.
    """
    run = round_folder(folder, number) / "run"
    changes, _ = read_changes(run)
    series = read_series(run / "tensorboard")
    report = round_folder(folder, number) / "synthesis" / "report.json"
    accuracies = list(series.get(PSEUDO_LABELS, {}).values())
    return Round(
        number=number,
        scores={name: change.after for name, change in changes.items()},
        before={name: change.before for name, change in changes.items()},
        shares=series.get(SHARE, {}),
        pseudo_label_accuracy=sum(accuracies) / len(accuracies) if accuracies else None,
        synthesis=json.loads(report.read_text())["strategies"]["all"] if report.is_file() else None,
        agreement=agreement(*(_elected(run / "evaluation" / f"{name}.jsonl") for name in ("before", "after"))),
    )


def _elected(file: Path) -> dict[str, str]:
    """What the samples of each question elect, by its id; without those that elect nothing."""
    answers: dict[str, list[str | None]] = defaultdict(list)
    for response in read_whole(file):
        if response.mode == "sample":
            answers[response.id].append(extract_answer(response.response))
    winners = {id_: vote(group).winner for id_, group in answers.items()}
    return {id_: winner for id_, winner in winners.items() if winner is not None}


def agreement(one: Mapping[str, str], other: Mapping[str, str]) -> float | None:
    """The share of questions with equal answers among those that have one in both; None where there is none."""
    common = one.keys() & other.keys()
    return sum(equivalent(one[id_], other[id_]) for id_ in common) / len(common) if common else None


def find_collapse_of(rounds: Sequence[Round], rule: CollapseRule) -> Collapse | None:
    """Whether the last round has collapsed: by greedy accuracy or pass@k, over the steps of all rounds.

    A single round below the best one is enough, as a round is long.
    """
    if not rounds:
        return None
    shares: dict[int, float] = {}
    ends: dict[int, Round] = {}
    offset = 0
    for one in rounds:
        shares |= {offset + step: share for step, share in one.shares.items()}
        offset += max(one.shares, default=1)
        ends[offset] = one
    at_once = replace(rule, patience=1)
    for name in (GREEDY, rounds[0].pass_at_k):
        validations = {0: _by_question(rounds[0].before[name])}
        validations |= {end: _by_question(one.scores[name]) for end, one in ends.items()}
        if found := find_collapse(shares, validations, at_once, name):
            return found
    return None


def _by_question(score: Score) -> dict[str, float]:
    # The questions of all rounds are the same, in the same order.
    return {str(number): value for number, value in enumerate(score.per_question)}


def best_round(rounds: Sequence[Round]) -> int:
    """The number of the round with the highest greedy accuracy, the earliest of several; 0 for the model before all."""
    accuracy = {0: rounds[0].before[GREEDY].value, **{one.number: one.scores[GREEDY].value for one in rounds}}
    return max(accuracy, key=lambda number: (accuracy[number], -number))


def render(rounds: Sequence[Round]) -> str:
    """The rounds as a Markdown table."""
    names = [name for name in rounds[0].scores if name == GREEDY or "@" in name]
    head = ("round", *(f"{name}, %" for name in names), "vote share", "pseudo-labels right, %")
    rows: list[tuple[str, ...]] = [(*head, "questions kept", "different, %", "same answer as before, %")]
    rows.append(("before", *(_percent(rounds[0].before[name]) for name in names), *[""] * 5))
    for one in rounds:
        shares = [share for _, share in sorted(one.shares.items())]
        written = one.synthesis
        rows.append(
            (
                str(one.number),
                *(_percent(one.scores[name]) for name in names),
                f"{shares[0]:.2f} → {shares[-1]:.2f}" if shares else "",
                "" if one.pseudo_label_accuracy is None else f"{100 * one.pseudo_label_accuracy:.1f}",
                f"{written['kept']} of {written['candidates']}" if written else "",
                f"{100 * written['distinct_questions']:.1f}" if written and written["distinct_questions"] else "",
                "" if one.agreement is None else f"{100 * one.agreement:.1f}",
            )
        )
    return aligned(rows)


def _percent(score: Score) -> str:
    return f"{100 * score.value:.1f} ± {100 * score.standard_error:.1f}"


def plot(rounds: Sequence[Round]) -> bytes:
    """Draw accuracies over the rounds, and the share of the vote over their steps, as a PNG."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(10, 3.6), dpi=160, layout="constrained")
    left, right = figure.subplots(1, 2)
    for name in [name for name in rounds[0].scores if name == GREEDY or "@" in name]:
        scores = [rounds[0].before[name], *(one.scores[name] for one in rounds)]
        left.errorbar(
            range(len(scores)),
            [100 * score.value for score in scores],
            yerr=[100 * score.standard_error for score in scores],
            marker="o",
            capsize=3,
            label=name,
        )
    left.set_ylim(0, 105)
    left.set_ylabel("accuracy on held-out questions, %", color=TEXT_COLOR)
    left.set_xlabel("round", color=TEXT_COLOR)
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    offset = 0
    for one in rounds:
        steps = sorted(one.shares.items())
        right.plot([offset + step for step, _ in steps], [share for _, share in steps], label=f"round {one.number}")
        offset += max(one.shares, default=0)
    right.set_ylim(0, 1.05)
    right.set_ylabel("vote share", color=TEXT_COLOR)
    right.set_xlabel("training step", color=TEXT_COLOR)
    tidy(left)
    tidy(right)
    return as_png(figure)


def write_rounds(folder: Path, rounds: Sequence[Round], stopped: Collapse | None = None) -> str:
    """Write `rounds.md`, `rounds.json` and `rounds.png` into the folder of all rounds and return the text."""
    best = best_round(rounds)
    lines = [render(rounds), f"The best policy is {f'that of round {best}' if best else 'the one before all rounds'}."]
    if stopped:
        lines.append(f"It was stopped after round {rounds[-1].number}: {stopped}.")
    lines.append(
        "± is one standard error over questions. Vote share: first and last step of a round. Same answer as before: of "
        "the held-out questions on which the samples elect an answer both before and after the round."
    )
    text = "\n\n".join(lines)
    content = {
        "best_round": best,
        "stopped": None if stopped is None else str(stopped),
        "rounds": [
            {
                "round": one.number,
                "scores": {
                    name: {"value": s.value, "standard_error": s.standard_error} for name, s in one.scores.items()
                },
                "shares": sorted(one.shares.items()),
                "pseudo_label_accuracy": one.pseudo_label_accuracy,
                "synthesis": one.synthesis,
                "agreement": one.agreement,
            }
            for one in rounds
        ],
    }
    write_atomically(folder / "rounds.png", plot(rounds))
    write_json(folder / "rounds.json", content)
    picture = "![Accuracies over rounds, vote share over steps](rounds.png)"
    write_atomically(folder / "rounds.md", f"# {folder.resolve().name}\n\n{text}\n\n{picture}\n")
    return text
