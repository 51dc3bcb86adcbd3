"""Reads the finished runs of a table from their folders, and stores them in `table.json`.

`table.json` has the score of every question, so it replaces the folders of its runs: other runs on the same questions
can be tested against it, paired by question, on any machine.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from mmupt.evaluation.benchmark_scores import score_verdicts
from mmupt.evaluation.verdicts import JudgedFile
from mmupt.training.metric_series import Series, read_series
from mmupt.training.run_cost import Cost, read_cost
from mmupt.training.run_report import Change, changes_between, judge_evaluations, read_config
from verl_ext.files import write_atomically
from verl_ext.metric_names import LABEL_ACCURACY, MAJORITY_RATIO, REWARD_ACCURACY, VALIDATION_ACCURACY
from verl_ext.scores import Score

TABLE = "table.json"
# Decimals of the score of a question in nats or tokens: far more precise than any standard error.
DECIMALS = 4
# Name in the table -> metric of the votes.
VOTES = {"label accuracy": LABEL_ACCURACY, "majority ratio": MAJORITY_RATIO, "reward accuracy": REWARD_ACCURACY}

# (benchmark, breakdown) -> (label, number of questions) -> greedy accuracy of a model.
Breakdowns = dict[tuple[str, str], dict[tuple[str, int], float]]


@dataclass(frozen=True)
class Model:
    """A model's scores by name, and its greedy accuracy by the breakdowns of each benchmark."""

    scores: dict[str, Score]
    breakdowns: Breakdowns


@dataclass(frozen=True)
class TableRun:
    """One run of a table.

    Attributes:
        method: name of the method in the paper, None if the paper does not have it.
        evaluation: as `evaluation_of` returns it.
        votes: name in `VOTES` -> means over the first and the last quarter of the steps.
        validation: step -> accuracy, averaged over data sources.
    """

    recipe: str
    seed: int
    method: str | None
    evaluation: dict[str, Any]
    cost: Cost
    base: Model
    trained: Model
    votes: dict[str, tuple[float, float]]
    validation: dict[int, float]

    @property
    def questions(self) -> tuple[Any, ...]:
        """Digests of the evaluation files, and the limit on questions: equal for runs that can be compared."""
        return sorted(self.evaluation["data"].values()), self.evaluation["limit"]

    @property
    def changes(self) -> dict[str, Change]:
        """The scores before and after training, by name."""
        return {name: Change(score, self.trained.scores[name]) for name, score in self.base.scores.items()}


# The runs of a table: recipe -> seed -> run.
Runs = dict[str, dict[int, TableRun]]


def short_name(file: str) -> str:
    """The folder and name of an evaluation file, such as `figures/test.parquet`."""
    return "/".join(Path(file).parts[-2:])


def evaluation_of(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the files with their digests, limit, base and temperature of an evaluation, without full paths."""
    return {
        "data": {short_name(file): digest for file, digest in parameters.get("data", {}).items()},
        "limit": parameters.get("limit"),
        "model": Path(parameters.get("model", "")).name,
        "temperature": parameters.get("temperature"),
    }


def read_run(folder: Path, recipe: str, seed: int) -> TableRun:
    """Read a finished run from its folder.

    Raises:
        FileNotFoundError: `config.yaml` is missing, or as in `mmupt.training.run_report.write_report`.
        ValueError: as in `write_report`.
    """
    if not (file := folder / "config.yaml").is_file():
        raise FileNotFoundError(f"{file} is missing: restore it, or move the run out of the folder of the table")
    before, after = judge_evaluations(folder)
    changes = changes_between(before, after)
    series = read_series(folder / "tensorboard")
    method = read_config(folder).mmupt.paper_method
    return TableRun(
        recipe=recipe,
        seed=seed,
        method=None if method is None else str(method),
        evaluation=evaluation_of(before.parameters),
        cost=read_cost(folder),
        base=Model({name: change.before for name, change in changes.items()}, read_breakdowns(before)),
        trained=Model({name: change.after for name, change in changes.items()}, read_breakdowns(after)),
        votes={name: _first_and_last(series[metric]) for name, metric in VOTES.items() if metric in series},
        validation=_validation(series),
    )


def read_table(file: Path) -> Runs:
    """Read the runs of a `table.json`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: `write_runs` did not write this file; the message names it.
    """
    try:
        content = json.loads(file.read_bytes())
        bases = [_model(base) for base in content["bases"]]
        runs = [_run(run, bases) for run in content["runs"]]
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} is not a {TABLE} of `mmupt table`: {error!r}") from error
    return by_recipe(runs)


def by_recipe(runs: Iterable[TableRun]) -> Runs:
    """Group runs by recipe, in the order of each recipe's first run, and sort each group by seed."""
    groups: Runs = {}
    for run in runs:
        groups.setdefault(run.recipe, {})[run.seed] = run
    return {recipe: dict(sorted(seeds.items())) for recipe, seeds in groups.items()}


def write_runs(file: Path, runs: Runs) -> None:
    """Write a `table.json` with one line per base and per run, so that added seeds show as added lines in a diff."""
    all_runs = [run for seeds in runs.values() for run in seeds.values()]
    bases = list(dict.fromkeys(_text_of_model(run.base) for run in all_runs))
    lines = [_text_of_run(run, bases.index(_text_of_model(run.base))) for run in all_runs]
    text = "\n".join(('{"bases": [', ",\n".join(bases), '], "runs": [', ",\n".join(lines), "]}\n"))
    write_atomically(file, text)


def _text_of_run(run: TableRun, base: int) -> str:
    content = {
        "recipe": run.recipe,
        "seed": run.seed,
        "method": run.method,
        "evaluation": run.evaluation,
        "cost": asdict(run.cost),
        "votes": run.votes,
        "validation": run.validation,
        "base": base,
    }
    return f'{_compact(content)[:-1]},"trained":{_text_of_model(run.trained)}}}'


def _text_of_model(model: Model) -> str:
    breakdowns = [
        {"benchmark": benchmark, "name": name, "labels": [[*label, value] for label, value in labels.items()]}
        for (benchmark, name), labels in model.breakdowns.items()
    ]
    scores = {name: [_rounded(value) for value in score.per_question] for name, score in model.scores.items()}
    return _compact({"breakdowns": breakdowns, "scores": scores})


def _compact(content: Any) -> str:
    return json.dumps(content, separators=(",", ":"))


def _rounded(value: float) -> float | int:
    rounded = round(float(value), DECIMALS)
    return int(rounded) if rounded.is_integer() else rounded


def _run(content: Mapping[str, Any], bases: list[Model]) -> TableRun:
    return TableRun(
        **{name: content[name] for name in ("recipe", "seed", "method", "evaluation")},
        cost=Cost(**content["cost"]),
        base=bases[content["base"]],
        trained=_model(content["trained"]),
        votes={name: (first, last) for name, (first, last) in content["votes"].items()},
        validation={int(step): accuracy for step, accuracy in content["validation"].items()},
    )


def _model(content: Mapping[str, Any]) -> Model:
    breakdowns = {
        (breakdown["benchmark"], breakdown["name"]): {
            (label, number): value for label, number, value in breakdown["labels"]
        }
        for breakdown in content["breakdowns"]
    }
    return Model({name: Score(tuple(values)) for name, values in content["scores"].items()}, breakdowns)


def read_breakdowns(judged: JudgedFile) -> Breakdowns:
    """The greedy accuracy by the breakdowns of each benchmark in a file of responses."""
    return {
        (scores.benchmark, name): {(label, int(score["questions"])): score["value"] for label, score in labels.items()}
        for scores in score_verdicts(judged)
        for name, labels in scores.breakdowns.items()
    }


def _validation(series: Series) -> dict[int, float]:
    sources = [steps for name, steps in series.items() if re.fullmatch(VALIDATION_ACCURACY, name)]
    common = set.intersection(*map(set, sources)) if sources else set[int]()
    return {step: fmean(steps[step] for steps in sources) for step in sorted(common)}


def _first_and_last(steps: Mapping[int, float]) -> tuple[float, float]:
    values = [steps[step] for step in sorted(steps)]
    quarter = max(len(values) // 4, 1)
    return fmean(values[:quarter]), fmean(values[-quarter:])
