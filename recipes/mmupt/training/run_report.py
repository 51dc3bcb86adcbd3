"""What a run did to its policy: scores before and after training on the same questions, and curves over its steps.

    mmupt report RUN_FOLDER

Reads `evaluation/before.jsonl` and `evaluation/after.jsonl` of the run folder (by `mmupt eval`), the
truth beside the data that they answer, the event files under `tensorboard`, `collapse.json` where the run was stopped,
and in `config.yaml` how the run found and compared answers. Each response is judged by the rule of its benchmark, as in
the validation of the run; maj@k votes by the default policy. Writes `report.md`, `report.json` and `report.png` there.
Nothing is generated or trained here.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from omegaconf import OmegaConf

from mmupt.benchmarks import Question
from mmupt.evaluation.response_files import Response, read_parameters, read_whole
from mmupt.evaluation.verdicts import Verdict, questions_of, verdicts_of
from mmupt.reports.rendering import AFTER_COLOR, BEFORE_COLOR, LINE_COLORS, TEXT_COLOR, aligned, as_png, tidy
from mmupt.training.collapse_record import read_stop
from verl_ext.files import write_atomically, write_json
from verl_ext.rewards.reward_settings import RewardSettings, read_settings
from verl_ext.scores import Score, maj_at_k, mean_at_k, pass_at_k, semantic_entropy

GREEDY = "greedy accuracy"
ENTROPY = "semantic entropy"
LENGTH = "response length"


class Unit(NamedTuple):
    """How a score is printed: times `factor`, with so many decimals."""

    name: str
    factor: int
    decimals: int


SHARE = Unit("%", 100, 1)
# Of those scores that are no shares of 1.
UNITS = {ENTROPY: Unit("nats", 1, 2), LENGTH: Unit("tokens", 1, 1)}

# A metric by its name over the steps of a run: step -> value.
Series = dict[str, dict[int, float]]


class Panel(NamedTuple):
    r"""One panel of the plot: the metrics whose whole name matches `metrics`, and the score that is marked beside them.

    `percent` is whether the values are shares of 1. `line` labels a line; `\1` in it is the first group of the match.
    """

    title: str
    metrics: str
    y_label: str
    percent: bool
    line: str
    score: str | None = None


PANELS = (
    Panel(
        "Accuracy on held-out questions",
        r"val-core/(.+)/acc/mean@\d+",
        "accuracy, %",
        True,
        r"validation questions (\1)",
        GREEDY,
    ),
    Panel(
        "Vote share of the majority answer",
        r"vote/majority_ratio",
        "share of the responses, %",
        True,
        "training questions",
    ),
    Panel("Pseudo-label accuracy", r"vote/label_accuracy", "accuracy, %", True, "training questions"),
    Panel("Response length", r"response_length/mean", "tokens", False, "training questions", LENGTH),
)
# Between the evaluations before and after training.
MAY_DIFFER = {"model", "weights", "forbidden_openings"}


@dataclass(frozen=True)
class Change:
    """One score before and after training, over the same questions in the same order."""

    before: Score
    after: Score

    @property
    def difference(self) -> Score:
        """What training changed, question by question."""
        return self.after - self.before


def write_report(run_folder: Path, note: str | None = None) -> str:
    """Write the report of a run into its folder and return its table.

    Args:
        run_folder: as the module describes; event files may be missing, which the plot then says.
        note: what the figures show and what they do not, printed below the table.

    Raises:
        FileNotFoundError: a file of responses is missing; the message says what makes it.
        ValueError: the two files do not answer the same questions in the same way, or a question has no truth.
    """
    changes, parameters = read_changes(run_folder)
    series = read_series(run_folder / "tensorboard")
    table = render_table(changes)
    stop = read_stop(run_folder)
    times = "once" if parameters["samples"] == 1 else f"{parameters['samples']} times"
    text = [
        f"# {run_folder.resolve().name}",
        f"{changes[GREEDY].before.questions} questions of {', '.join(parameters['data'])}, each answered greedily and "
        f"{times} by sampling at temperature {parameters['temperature']:g}, before and after "
        "training. ± is one standard error over questions; the difference is taken question by question.",
        table,
        *([f"**{stop['message']}**"] if stop else []),
        *([note] if note else []),
        "![Accuracy, vote share, pseudo-label accuracy and response length over the steps of the run](report.png)",
    ]
    write_atomically(run_folder / "report.png", plot(series, changes))
    write_atomically(run_folder / "report.md", "\n\n".join(text) + "\n")
    content = {
        "questions": changes[GREEDY].before.questions,
        "samples": parameters["samples"],
        "scores": {name: _as_json(change) for name, change in changes.items()},
        "note": note,
        "collapse": stop,
        "series": {name: sorted(steps.items()) for name, steps in series.items()},
    }
    write_json(run_folder / "report.json", content)
    return table


def read_changes(run_folder: Path) -> tuple[dict[str, Change], dict[str, Any]]:
    """Return the scores of a run before and after training by name, and how both evaluations were made.

    Raises what `write_report` does.
    """
    before_file, after_file = (run_folder / "evaluation" / f"{name}.jsonl" for name in ("before", "after"))
    parameters = _common_parameters(before_file, after_file)
    questions = questions_of(parameters)
    settings = _read_settings(run_folder / "config.yaml")
    before, after = (score(read_whole(file), questions, file, settings) for file in (before_file, after_file))
    return {name: Change(before[name], after[name]) for name in before}, parameters


def score(
    responses: Sequence[Response], questions: Mapping[str, Question], file: Path, settings: RewardSettings
) -> dict[str, Score]:
    """Score the responses of one file, questions in the order of their ids, each by the rule of its benchmark.

    Accuracies, how much the samples agree, and their length; where there are several benchmarks, the greedy accuracy of
    each of them, too.

    Raises:
        ValueError: a question without exactly one greedy response, or a response to none of the questions.
    """
    ids = sorted({response.id for response in responses})
    if unknown := [id_ for id_ in ids if id_ not in questions]:
        raise ValueError(f"{file}: {len(unknown)} of {len(ids)} questions are not in its data, {unknown[0]} among them")
    greedy: dict[str, list[Verdict]] = {id_: [] for id_ in ids}
    sampled: dict[str, list[Verdict]] = {id_: [] for id_ in ids}
    for verdict in verdicts_of(responses, questions, settings.extraction, settings.comparison):
        (greedy if verdict.response.mode == "greedy" else sampled)[verdict.response.id].append(verdict)
    if unclear := [id_ for id_ in ids if len(greedy[id_]) != 1]:
        raise ValueError(f"{file}: question {unclear[0]} has {len(greedy[unclear[0]])} greedy responses instead of one")
    asked = [questions[id_] for id_ in ids]
    truths, options = [one.truth for one in asked], [one.choices for one in asked]
    answers = [[verdict.answer for verdict in sampled[id_]] for id_ in ids]
    right = _right(sampled, ids)
    k = len(answers[0])
    scores = {
        GREEDY: mean_at_k(_right(greedy, ids)),
        f"mean@{k}": mean_at_k(right),
        # One response elects nobody.
        **({f"maj@{k}": maj_at_k(answers, truths, settings.comparison, options)} if k > 1 else {}),
        f"pass@{k}": pass_at_k(right, k),
        ENTROPY: semantic_entropy(answers, settings.comparison, options),
        LENGTH: Score(tuple(fmean(verdict.response.tokens or 0 for verdict in sampled[id_]) for id_ in ids)),
    }
    sources = sorted({one.data_source for one in asked})
    for source in sources if len(sources) > 1 else ():
        of_source = [id_ for id_ in ids if questions[id_].data_source == source]
        scores[f"{GREEDY}, {source}"] = mean_at_k(_right(greedy, of_source))
    return scores


def _right(verdicts: Mapping[str, Sequence[Verdict]], ids: Sequence[str]) -> list[list[bool]]:
    """Question x response, by the rule that leads."""
    return [[next(iter(verdict.right.values())) for verdict in verdicts[id_]] for id_ in ids]


def read_series(folder: Path) -> Series:
    """Read the metrics of all panels from the event files under a folder; none where there are no files.

    A run that was resumed has several files and may have repeated steps: what was written last counts.
    """
    from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

    events: dict[str, list[Any]] = {}
    for file in folder.rglob("events.out.tfevents.*"):
        # Without a size guidance of 0 it keeps a random sample of the steps.
        accumulator = EventAccumulator(str(file), size_guidance={SCALARS: 0}, purge_orphaned_data=False).Reload()
        for name in accumulator.Tags()[SCALARS]:
            if any(re.fullmatch(panel.metrics, name) for panel in PANELS):
                events.setdefault(name, []).extend(accumulator.Scalars(name))
    return {
        name: {event.step: event.value for event in sorted(scalars, key=lambda event: event.wall_time)}
        for name, scalars in sorted(events.items())
    }


def render_table(changes: Mapping[str, Change]) -> str:
    """The scores as a Markdown table."""
    rows: list[tuple[str, ...]] = [("", "before", "after", "difference")]
    for name, change in changes.items():
        unit, factor, decimals = UNITS.get(name, SHARE)
        cells = (
            f"{factor * value.value:{sign}.{decimals}f} ± {factor * value.standard_error:.{decimals}f}"
            for value, sign in ((change.before, ""), (change.after, ""), (change.difference, "+"))
        )
        rows.append((f"{name}, {unit}", *cells))
    return aligned(rows)


def plot(series: Series, changes: Mapping[str, Change]) -> bytes:
    """Draw the panels as a PNG; the scores before and after training stand at the first and the last step."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    last_step = max((step for steps in series.values() for step in steps), default=1)
    figure = Figure(figsize=(9, 5.8), dpi=160, layout="constrained")
    for axes, panel in zip(figure.subplots(2, 2).flat, PANELS, strict=True):
        factor = 100 if panel.percent else 1
        axes.set_title(panel.title, loc="left", fontsize=11, fontweight="bold", color=TEXT_COLOR)
        axes.set_xlabel("step", color=TEXT_COLOR)
        axes.set_ylabel(panel.y_label, color=TEXT_COLOR)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        lines = [(match, series[name]) for name in series if (match := re.fullmatch(panel.metrics, name))]
        for (match, steps), color in zip(lines, LINE_COLORS, strict=False):
            ordered = sorted(steps.items())
            axes.plot(
                [step for step, _ in ordered],
                [factor * value for _, value in ordered],
                color=color,
                marker="o",
                markersize=3.5,
                linewidth=1.8,
                label=match.expand(panel.line),
            )
        if not lines:
            axes.text(0.5, 0.5, "not recorded", transform=axes.transAxes, ha="center", va="center", color=BEFORE_COLOR)
        if panel.score:
            change = changes[panel.score]
            for moment, value, step, color in (
                ("before", change.before, 0, BEFORE_COLOR),
                ("after", change.after, last_step, AFTER_COLOR),
            ):
                axes.errorbar(
                    step,
                    factor * value.value,
                    yerr=factor * value.standard_error,
                    color=color,
                    marker="D",
                    markersize=7,
                    capsize=4,
                    linestyle="none",
                    label=f"test questions, {moment} training",
                    zorder=3,
                )
        tidy(axes)
        axes.set_xlim(-0.04 * last_step, 1.04 * last_step)
        # Some room above, so that a marker at 100 % is whole.
        axes.set_ylim(0, 105 if panel.percent else None)
    return as_png(figure)


def _common_parameters(before: Path, after: Path) -> dict[str, Any]:
    found = {}
    for file in (before, after):
        parameters = read_parameters(file)
        if parameters is None:
            raise FileNotFoundError(
                f"{file} with its parameters is missing: make it by `mmupt eval model=MODEL "
                f"files={{{file.stem}:DATA}} output={file.parent}`, MODEL being the policy {file.stem} training"
            )
        found[file] = {name: value for name, value in parameters.items() if name not in MAY_DIFFER}
    if differing := [name for name, value in found[before].items() if found[after].get(name) != value]:
        raise ValueError(f"{before} and {after} were not made alike: their parameters differ in {', '.join(differing)}")
    return found[before]


def _read_settings(config: Path) -> RewardSettings:
    return read_settings(OmegaConf.select(OmegaConf.load(config), "reward.reward_kwargs") if config.is_file() else None)


def _as_json(change: Change) -> dict[str, dict[str, float]]:
    scores = {"before": change.before, "after": change.after, "difference": change.difference}
    return {name: {"value": s.value, "standard_error": s.standard_error} for name, s in scores.items()}
