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

# The project's comparison of answers, see docs/answers.md. Raise the version with every release that changes which
# answers `verl_ext/answers` extracts or calls equal: scores of two versions cannot be compared.
OWN_RULE = "own"
OWN_VERSION = 2
# Columns that scoring reads.
COLUMNS = ("id", "data_source", "prompt", "question_type", "choices")


@dataclass(frozen=True)
class Question:
    """A row of a benchmark with its ground truth. `metadata` has the source columns that the layout keeps."""

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

    `name` says whose rule it is: "official" is the authors' own, "cleaned official" applies it to an answer that code
    cleans where the authors use a model, and "rule-based" replaces a judge model. Raise `version` with every change to
    the rule or to the benchmark's `extract`: it is saved with the scores, and scores of different versions are never
    compared.
    """

    name: str
    version: int
    is_correct: Callable[[str | None, Question], bool]


@dataclass(frozen=True)
class JudgeSteps:
    """The steps of a benchmark that its authors leave to a judge model.

    plain: returns the answer of a response that needs no judge, otherwise None; if unset, every response needs one.
    ask_answer: builds the prompt that asks the judge for the answer in a response.
    ask_agreement: builds the prompt that asks whether an answer agrees with the ground truth; if unset, the first rule
        decides.
    """

    plain: Callable[[str, Question], str | None] | None
    ask_answer: Callable[[str, Question], str]
    ask_agreement: Callable[[str, Question], str] | None = None


@dataclass(frozen=True)
class Benchmark:
    """A benchmark, named like its data set.

    data: the source of its rows.
    split: the split to answer.
    breakdowns: returns the labels of a question in each breakdown that the authors report.
    rules: the authors' rules, the leading rule first. The project's own comparison is always made too, and leads if
        the authors have no rule.
    official_prompt: builds the authors' prompt, with the image placeholders of the question. It may read every field
        of the question except the ground truth.
    extract: returns the answer in a response to the official prompt, boxed or not, or None if there is none.
    judge: the steps that the authors leave to a judge model.
    scores: computes further scores from the verdicts on all questions by id.
    problem_scores: returns the score of each problem, for the further scores that are means over problems of several
        questions.
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
    """The version of a rule by its name. A name that neither the benchmark nor the project defines is a judge model."""
    rules = BENCHMARKS[source].rules if source in BENCHMARKS else ()
    return {OWN_RULE: OWN_VERSION, **{one.name: one.version for one in rules}}.get(rule, JUDGE_VERSION)


def read_questions(file: str | Path) -> dict[str, Question]:
    """Read the questions of a file by id, with the ground truth that `verl_ext.datasets.ground_truth` finds.

    Raises:
        ValueError: a row cannot be read or has no ground truth.
    """
    truth, metadata = read_truth([file]), read_metadata([file])
    rows = list(whole_rows(file, COLUMNS))
    if missing := [row["id"] for row in rows if row["id"] not in truth]:
        raise ValueError(
            f"{sidecar_of(file)}: no ground truth for {len(missing)} of {len(rows)} rows, for example {missing[0]}"
        )
    return {row["id"]: as_question(row, truth[row["id"]], metadata.get(row["id"])) for row in rows}


class _Metadata(dict[str, Any]):
    """Metadata of a question. The error for a missing key names the question."""

    def __init__(self, metadata: str | None, id_: str, source: str) -> None:
        super().__init__(json.loads(metadata) if metadata else {})
        self._id, self._source = id_, source

    def __missing__(self, key: str) -> Any:
        raise ValueError(
            f"question {self._id!r} has no {key!r} in its metadata, which the benchmark {self._source} needs for "
            f"scoring: prepare the data with `mmupt data {self._source}`, or give the rows another data_source"
        )


def as_question(row: Mapping[str, Any], truth: str, metadata: str | None) -> Question:
    """Build a question from a row of a benchmark, its ground truth and its metadata as JSON."""
    return Question(
        id=row["id"],
        data_source=row["data_source"],
        text="\n".join(message["content"] for message in row["prompt"]),
        question_type=row["question_type"],
        choices=tuple(row["choices"]) if row.get("choices") else None,
        truth=truth,
        metadata=_Metadata(metadata, row["id"], row["data_source"]),
    )
