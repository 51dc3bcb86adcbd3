"""Reports on a run: scores before and after training on the same questions, and curves over its steps.

Reads `evaluation/before.jsonl` and `evaluation/after.jsonl` of the run folder, the ground truth of their data, the
event files under `tensorboard`, the saved votes under `votes`, and `collapse.json` if the run was stopped. Responses
are judged by the rule of their benchmark with the run's settings for answers, as in validation; maj@k uses the default
options of the vote. Writes `report.md`, `report.json` and `report.png` into the run folder. Generates and trains
nothing.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import chain, cycle
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import OmegaConf
from yaml import YAMLError

from mmupt.console import tell
from mmupt.evaluation.benchmark_scores import ENTROPY, GREEDY, LENGTH, StoredScore, score_json, score_verdicts
from mmupt.evaluation.response_files import Mode, read_parameters
from mmupt.evaluation.verdicts import JudgedFile, judge_file
from mmupt.reports.plots import AFTER_COLOR, BEFORE_COLOR, LINE_COLORS, PERCENT, Panel, Points, draw
from mmupt.reports.tables import markdown_table, plus_minus
from mmupt.training.collapse_record import read_stop
from mmupt.training.metric_series import Series, read_series
from mmupt.training.vote_diagnostics import diagnose, model_collapse_step, read_elections, render
from verl_ext.answers import Comparison
from verl_ext.files import write_atomically, write_json
from verl_ext.metric_names import (
    LABEL_ACCURACY,
    MAJORITY_RATIO,
    RESPONSE_LENGTH,
    REWARD_ACCURACY,
    VALIDATION_ACCURACY,
)
from verl_ext.rewards.reward_settings import read_settings
from verl_ext.scores import Score


class ScoreUnit(NamedTuple):
    """How a score is printed: multiplied by `factor`, rounded to `decimals`, followed by `name`."""

    name: str
    factor: int
    decimals: int


PERCENTAGE = ScoreUnit("%", 100, 1)
# Units of scores that are not fractions.
UNITS = {ENTROPY: ScoreUnit("nats", 1, 2), LENGTH: ScoreUnit("tokens", 1, 1)}


class Curves(NamedTuple):
    r"""One panel of the plot.

    Attributes:
        metrics: pattern for the full names of the plotted metrics.
        percent: whether the values are fractions, to be shown in percent.
        line: label of a line; `\1` is the first group of the match with `metrics`.
        score: name of a score whose values before and after training are also marked.
    """

    title: str
    metrics: str
    y_label: str
    percent: bool
    line: str
    score: str | None = None


CURVES = (
    Curves(
        "Accuracy on held-out questions", VALIDATION_ACCURACY, "accuracy, %", True, r"validation questions (\1)", GREEDY
    ),
    Curves("Majority ratio", MAJORITY_RATIO, "share of responses, %", True, "training questions"),
    Curves("Label accuracy", LABEL_ACCURACY, "accuracy, %", True, "training questions"),
    Curves("Response length", RESPONSE_LENGTH, "tokens", False, "training questions", LENGTH),
)
TEST_TIME_TRAINING = (
    "**Test-time training: the policy was trained on the questions of this table, without their labels "
    "(`mmupt.test_time_training`). These are not scores on unseen questions.**"
)
# Parameters that may differ between the evaluations before and after training.
MAY_DIFFER = {"model", "weights", "forbidden_openings"}


@dataclass(frozen=True)
class Change:
    """A score before and after training, on the same questions in the same order."""

    before: Score
    after: Score

    @property
    def difference(self) -> Score:
        """The difference, paired by question."""
        return self.after - self.before


class StoredChange(NamedTuple):
    """A `Change` as stored in `report.json`, without the score of each question."""

    before: StoredScore
    after: StoredScore
    difference: StoredScore


def write_report(run_folder: Path, note: str | None = None) -> str:
    """Write the report of a run into its folder and return its table of scores.

    `note` is a caveat printed below the table, by default `mmupt.report_note` of the run.

    Raises:
        FileNotFoundError: a file of responses is missing; the message has the command that generates it.
        ValueError: the two files differ in questions or sampling, a line cannot be used, a response is missing, or a
            question has no ground truth.
    """
    before, after = judge_evaluations(run_folder)
    changes, parameters = changes_between(before, after), before.parameters
    # About the data; `changes_between` has refused bad lines.
    for warning in before.warnings():
        tell(warning)
    series = read_series(run_folder / "tensorboard")
    table = render_table(changes)
    stop = read_stop(run_folder)
    elections = read_elections(run_folder / "votes")
    config = read_config(run_folder)
    diagnostics = diagnose(elections, comparison_of(config))
    note = note or OmegaConf.select(config, "mmupt.report_note")
    on_test_questions = bool(OmegaConf.select(config, "mmupt.test_time_training"))
    reward_accuracy = series.get(REWARD_ACCURACY, {})
    times = "once" if parameters["samples"] == 1 else f"{parameters['samples']} times"
    text = [
        f"# {run_folder.resolve().name}",
        f"{changes[GREEDY].before.questions} questions of {', '.join(parameters['data'])}, each answered greedily and "
        f"{times} by sampling at temperature {parameters['temperature']:g}, before and after "
        "training. ± is one standard error over questions; differences are paired by question.",
        table,
        *([render_beyond(*beyond)] if (beyond := beyond_majority(changes)) else []),
        *([f"**{stop['message']}**"] if stop else []),
        *([TEST_TIME_TRAINING] if on_test_questions else []),
        *([note] if note else []),
        *([f"## Votes\n\n{render(diagnostics, reward_accuracy)}"] if elections or reward_accuracy else []),
        "![Accuracy, majority ratio, label accuracy and response length over the steps of the run](report.png)",
    ]
    write_atomically(run_folder / "report.png", plot(series, changes))
    write_atomically(run_folder / "report.md", "\n\n".join(text) + "\n")
    content = {
        "questions": changes[GREEDY].before.questions,
        "samples": parameters["samples"],
        "scores": {
            name: {side: score_json(getattr(change, side)) for side in ("before", "after", "difference")}
            for name, change in changes.items()
        },
        "beyond_majority": {"majority": beyond[0], **score_json(beyond[1])} if beyond else None,
        "note": note,
        "test_time_training": on_test_questions,
        "collapse": stop,
        "votes": {**asdict(diagnostics), "model_collapse_step": model_collapse_step(reward_accuracy)},
        "series": {name: sorted(steps.items()) for name, steps in series.items()},
    }
    write_json(run_folder / "report.json", content)
    return table


def read_config(run_folder: Path) -> Any:
    """The saved config of a run, empty if there is none; ValueError if it is not YAML."""
    file = run_folder / "config.yaml"
    try:
        return OmegaConf.load(file) if file.is_file() else OmegaConf.create()
    except YAMLError as error:
        raise ValueError(f"{file} is damaged: restore or remove it ({error})") from error


def comparison_of(config: Any) -> Comparison:
    """The comparison of answers in the vote of a run."""
    return read_settings(OmegaConf.select(config, "reward.reward_kwargs")).comparison


def read_changes(run_folder: Path) -> dict[str, Change]:
    """The scores of a run before and after training, by name; raises the errors of `write_report`."""
    return changes_between(*judge_evaluations(run_folder))


def judge_evaluations(run_folder: Path) -> tuple[JudgedFile, JudgedFile]:
    """Judge the evaluations of a run before and after training; raises the errors of `write_report`."""
    before, after = (run_folder / "evaluation" / f"{name}.jsonl" for name in ("before", "after"))
    _check_parameters(before, after)
    return judge_file(before), judge_file(after)


def changes_between(before: JudgedFile, after: JudgedFile) -> dict[str, Change]:
    """The scores of two evaluations by name; ValueError if one of them is incomplete."""
    scores_before, scores_after = overall_scores(before), overall_scores(after)
    return {name: Change(scores_before[name], scores_after[name]) for name in scores_before}


def overall_scores(judged: JudgedFile) -> dict[str, Score]:
    """Scores over all questions of an evaluation, by name, each scored by the leading rule of its benchmark.

    With several benchmarks, the greedy accuracy of each one is appended.

    Raises:
        ValueError: a line cannot be used, or a question has not exactly one greedy response, or fewer samples than
            others.
    """
    _check_complete(judged)
    benchmarks = score_verdicts(judged)
    by_name: dict[str, list[Score]] = defaultdict(list)
    for scores in benchmarks:
        for name, score in scores.headline().items():
            by_name[name].append(score)
    # Questions are ordered by benchmark, then by id, regardless of the order of responses.
    overall = {
        name: Score(tuple(chain.from_iterable(part.per_question for part in parts))) for name, parts in by_name.items()
    }
    if len(benchmarks) > 1:
        overall |= {f"{GREEDY}, {scores.benchmark}": scores.headline()[GREEDY] for scores in benchmarks}
    return overall


def _check_complete(judged: JudgedFile) -> None:
    if judged.bad_lines:
        line, why = judged.bad_lines[0]
        raise ValueError(f"{judged.file}, line {line}, cannot be scored: {why}")
    counts = Counter((verdict.response.id, verdict.response.mode) for verdict in judged.verdicts)
    samples = max((count for (_, mode), count in counts.items() if mode == "sample"), default=0)
    expected_counts: dict[Mode, int] = {"greedy": 1, "sample": samples}
    for id_ in dict.fromkeys(verdict.response.id for verdict in judged.verdicts):
        for mode, expected in expected_counts.items():
            if counts[id_, mode] != expected:
                raise ValueError(
                    f"{judged.file}: question {id_} has {counts[id_, mode]} {mode} responses instead of {expected}"
                )


def stored_changes(report: Mapping[str, Any]) -> dict[str, StoredChange]:
    """The scores in the content of a `report.json`, by name, for `render_table`."""
    return {
        name: StoredChange(**{side: StoredScore(**score) for side, score in change.items()})
        for name, change in report["scores"].items()
    }


def render_table(changes: Mapping[str, Change | StoredChange]) -> str:
    """Return the scores as a Markdown table."""
    rows: list[tuple[str, ...]] = [("", "before", "after", "difference")]
    for name, change in changes.items():
        unit, factor, decimals = UNITS.get(name, PERCENTAGE)
        before, after = (plus_minus(score, decimals, factor) for score in (change.before, change.after))
        rows.append((f"{name}, {unit}", before, after, plus_minus(change.difference, decimals, factor, signed=True)))
    return markdown_table(rows)


def majority_of(scores: Mapping[str, Score]) -> tuple[str, Score] | None:
    """The name (maj@k) and value of the majority's accuracy among a model's scores; None for fewer than two samples."""
    return next(((name, score) for name, score in scores.items() if name.startswith("maj@")), None)


def beyond_majority(
    changes: Mapping[str, Change], majority: tuple[str, Score] | None = None
) -> tuple[str, Score] | None:
    """The name maj@k, and greedy accuracy after training minus the maj@k of the base, paired by question.

    `majority` is the name and value of another maj@k of the base on the same questions, by default that before
    training. Returns None without `majority` and with fewer than two samples before training.
    """
    majority = majority or majority_of({name: change.before for name, change in changes.items()})
    return None if majority is None else (majority[0], changes[GREEDY].after - majority[1])


def render_beyond(majority: str, difference: Score) -> str:
    """Return the result of `beyond_majority` as a sentence."""
    return (
        f"Greedy accuracy after training minus {majority} before: {plus_minus(difference, 1, signed=True)} points. A "
        "majority of more samples may be more accurate; `mmupt table --base` compares with any number of samples."
    )


def plot(series: Series, changes: Mapping[str, Change]) -> bytes:
    """Return a PNG of the curves, with the scores before and after training marked at steps 0 and last."""
    last_step = max((step for steps in series.values() for step in steps), default=1)
    panels = [
        Panel(
            curves.title,
            [*_lines(curves, series), *_marks(curves, changes, last_step)],
            x_label="step",
            y_label=curves.y_label,
            x_limits=(-0.04 * last_step, 1.04 * last_step),
            y_limits=PERCENT if curves.percent else (0, None),
            whole_x=True,
            empty="" if any(re.fullmatch(curves.metrics, name) for name in series) else "not recorded",
        )
        for curves in CURVES
    ]
    return draw(panels, columns=2, size=(9, 5.8))


def _lines(curves: Curves, series: Series) -> Iterator[Points]:
    matches = [match for name in series if (match := re.fullmatch(curves.metrics, name))]
    for match, color in zip(matches, cycle(LINE_COLORS), strict=False):
        steps = dict(sorted(series[match.string].items()))
        values = [(100 if curves.percent else 1) * value for value in steps.values()]
        yield Points(list(steps), values, match.expand(curves.line), color=color, joined=True)


def _marks(curves: Curves, changes: Mapping[str, Change], last_step: int) -> Iterator[Points]:
    if change := changes.get(curves.score or ""):
        factor = 100 if curves.percent else 1
        for moment, score, step, color in (
            ("before", change.before, 0, BEFORE_COLOR),
            ("after", change.after, last_step, AFTER_COLOR),
        ):
            yield Points(
                [step],
                [factor * score.value],
                f"test questions, {moment} training",
                color=color,
                marker="D",
                size=7,
                y_errors=[factor * score.standard_error],
            )


def _check_parameters(before: Path, after: Path) -> None:
    fixed = {}
    for file in (before, after):
        parameters = read_parameters(file)
        if parameters is None:
            raise FileNotFoundError(
                f"{file} with its parameters is missing: generate it by `mmupt eval model=MODEL "
                f"files={{{file.stem}:DATA}} output={file.parent}`, where MODEL is the policy {file.stem} training"
            )
        fixed[file] = {name: value for name, value in parameters.items() if name not in MAY_DIFFER}
    if differing := [name for name, value in fixed[before].items() if fixed[after].get(name) != value]:
        raise ValueError(f"{before} and {after} cannot be compared: their parameters differ in {', '.join(differing)}")
