"""What a benchmark declares: its data, its prompt, the rules that score an answer, and its breakdowns."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmupt.benchmarks.judge_prompts import JUDGE_VERSION
from mmupt_data.data_set import DataSet
from verl_ext.datasets.ground_truth import read_metadata, read_truth, sidecar_of
from verl_ext.datasets.parquet_reader import whole_rows
from verl_ext.registry import Registry

# The project's comparison of answers, see docs/answers.md. Raise the version with every release in which
# `verl_ext/answers` calls other answers equal or extracts other answers: scores of two versions cannot be compared.
OWN_RULE = "own"
OWN_VERSION = 2
# Columns that scoring reads.
COLUMNS = ("id", "data_source", "prompt", "question_type", "choices")


@dataclass(frozen=True)
class Question:
    """A row of a benchmark with its ground truth. `metadata` is what the benchmark's layout keeps of the source."""

    id: str
    data_source: str
    text: str
    question_type: str
    choices: tuple[str, ...] | None
    truth: str
    metadata: Mapping[str, Any]


@dataclass(frozen=True)
class Rule:
    """Decides whether an extracted answer (None: the response has none) is right.

    `name` says whose rule it is: "official" is the authors' own, "cleaned official" the same on an answer that was
    cleaned by rule where the authors let a model do that, and "rule-based" stands in for a judge model. Raise `version`
    with every change to the rule or to the benchmark's `extract`: it is saved with the scores, and scores of two
    versions are never compared.
    """

    name: str
    version: int
    is_correct: Callable[[str | None, Question], bool]


@dataclass(frozen=True)
class JudgeSteps:
    """The steps of a benchmark that its authors leave to a judge model.

    plain: the answer of a response that needs no judge, None if it needs one; without it, every response does.
    ask_answer: the prompt that asks the judge for the answer of a response.
    ask_agreement: the prompt that asks whether an answer agrees with the ground truth; None: the first rule decides.
    """

    plain: Callable[[str, Question], str | None] | None
    ask_answer: Callable[[str, Question], str]
    ask_agreement: Callable[[str, Question], str] | None = None


@dataclass(frozen=True)
class Benchmark:
    """A benchmark, named like its data set.

    data: where its rows come from.
    split: the split that is answered.
    breakdowns: the labels of a question in each breakdown that the authors report.
    rules: the authors' rules; the first one leads. Without one the project's own comparison leads, which is always
    made too.
    official_prompt: the authors' prompt, with the image placeholders of the question. It may read every field of the
    question but the ground truth.
    extract: finds the answer of a response to the official prompt, which need not have a box; None: there is none.
    judge: what the authors ask a judge model.
    scores: further scores from the verdicts on all questions, by id.
    problem_scores: by the name of a further score, what each problem of several questions contributes to it; only for
    those that are means over problems.
    """

    data: DataSet
    split: str
    breakdowns: Callable[[Question], Mapping[str, tuple[str, ...]]]
    rules: tuple[Rule, ...] = ()
    official_prompt: Callable[[Question], str] | None = None
    extract: Callable[[str, Question], str | None] | None = None
    judge: JudgeSteps | None = None
    scores: Callable[[Mapping[str, bool], Iterable[Question]], dict[str, float]] | None = None
    problem_scores: Callable[[Mapping[str, bool], Iterable[Question]], dict[str, dict[str, float]]] | None = None

    @property
    def name(self) -> str:
        """The name of the data set, which is the `data_source` of its rows."""
        return self.data.name


# By name. The `data_source` of a row says which benchmark it belongs to; rows of other sources are scored by the
# project's own comparison alone.
BENCHMARKS: Registry[Benchmark] = Registry("benchmark", "mmupt.benchmarks")


def rule_version(source: str, rule: str) -> int:
    """The version of a rule by its name; a name that is neither the benchmark's nor the project's is a judge model."""
    rules = BENCHMARKS[source].rules if source in BENCHMARKS else ()
    return {OWN_RULE: OWN_VERSION, **{one.name: one.version for one in rules}}.get(rule, JUDGE_VERSION)


def read_questions(file: str | Path) -> dict[str, Question]:
    """The questions of a file by id, with the ground truth that `verl_ext.datasets.ground_truth` finds for it.

    Raises:
        ValueError: a row cannot be read or has no ground truth.
    """
    truth, metadata = read_truth([file]), read_metadata([file])
    rows = list(whole_rows(file, COLUMNS))
    if missing := [row["id"] for row in rows if row["id"] not in truth]:
        raise ValueError(
            f"{sidecar_of(file)}: no ground truth for {len(missing)} of {len(rows)} rows, {missing[0]} among them"
        )
    return {row["id"]: as_question(row, truth[row["id"]], metadata.get(row["id"])) for row in rows}


class _Metadata(dict[str, Any]):
    """The metadata of a question, with an error that names it where a key is missing."""

    def __init__(self, metadata: str | None, id_: str, source: str) -> None:
        super().__init__(json.loads(metadata) if metadata else {})
        self._id, self._source = id_, source

    def __missing__(self, key: str) -> Any:
        raise ValueError(
            f"question {self._id!r} has no {key!r} in its metadata, by which the benchmark {self._source} is scored: "
            f"prepare it by `mmupt data {self._source}`, or give its rows another data_source"
        )


def as_question(row: Mapping[str, Any], truth: str, metadata: str | None) -> Question:
    """A row of a benchmark with its ground truth and its metadata, a JSON object."""
    return Question(
        id=row["id"],
        data_source=row["data_source"],
        text="\n".join(message["content"] for message in row["prompt"]),
        question_type=row["question_type"],
        choices=tuple(row["choices"]) if row.get("choices") else None,
        truth=truth,
        metadata=_Metadata(metadata, row["id"], row["data_source"]),
    )
