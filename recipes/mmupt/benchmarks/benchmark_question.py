"""What scoring knows of a question, and what a benchmark has to say about an answer to it."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verl_ext.datasets.ground_truth import read_metadata, read_truth, sidecar_of
from verl_ext.datasets.parquet_reader import whole_rows

# The project's comparison of answers, see docs/answers.md. Raise the version with every release in which
# `verl_ext/answers` calls other answers equal or extracts other answers: scores of two versions cannot be compared.
OWN_RULE = "own"
OWN_VERSION = 2
# What scoring reads of a row.
COLUMNS = ("id", "data_source", "prompt", "question_type", "choices")


@dataclass(frozen=True)
class Question:
    """A row of a benchmark with its truth; `metadata` is what its module of `data/` keeps beside that."""

    id: str
    data_source: str
    text: str
    question_type: str
    choices: tuple[str, ...] | None
    truth: str
    metadata: Mapping[str, Any]


@dataclass(frozen=True)
class Rule:
    """Says whether an extracted answer, None where a response has none, is right.

    `name` says whose rule it is: "official" is that of the benchmark's authors, "cleaned official" the same after the
    answer was cleaned by rule, where the authors let a model do that, and "rule-based" stands in for a judge model.
    `version` changes with any change to the rule or to the benchmark's `extract`: scores of two versions of a rule
    cannot be compared.
    """

    name: str
    version: int
    is_correct: Callable[[str | None, Question], bool]


@dataclass(frozen=True)
class Judged:
    """The steps of a benchmark that its authors leave to a judge model.

    `plain` gives the answer of a response that needs no judge, None where it does. `ask_answer` makes the prompt that
    asks for the answer of a response, and `ask_agreement` the one that asks whether an answer agrees with the truth;
    where it is None, the leading rule of the benchmark decides.
    """

    plain: Callable[[str, Question], str | None]
    ask_answer: Callable[[str, Question], str]
    ask_agreement: Callable[[str, Question], str] | None = None


@dataclass(frozen=True)
class Benchmark:
    """A benchmark.

    `split` of the data set `name` is the one that is answered.
    `rules` are its own, the leading one first; where there is none, the project's comparison leads, which is made in
    any case. `strata` gives the labels of a question in each of the breakdowns that its authors report. `scores` makes
    further scores out of the verdicts on all questions, by id, and `problem_scores` says by name what each problem, of
    several questions, adds to those among them that are means over problems.

    `official_prompt` is what its authors ask, with the placeholders of the question; it may read the columns of the
    question, `query` and its like in the metadata among them, never the truth. `extract` finds the answer of a response
    to that prompt, which need not have a box; None where there is none. `judged` is what its authors ask a judge model.
    """

    name: str
    split: str
    rules: tuple[Rule, ...]
    strata: Callable[[Question], Mapping[str, tuple[str, ...]]]
    scores: Callable[[Mapping[str, bool], Iterable[Question]], dict[str, float]] | None = None
    official_prompt: Callable[[Question], str] | None = None
    extract: Callable[[str, Question], str | None] | None = None
    judged: Judged | None = None
    problem_scores: Callable[[Mapping[str, bool], Iterable[Question]], dict[str, dict[str, float]]] | None = None


def read_questions(file: str | Path) -> dict[str, Question]:
    """The questions of a file with the truth that `verl_ext.datasets.ground_truth` finds for it, by id.

    Raises ValueError where a row cannot be read or its truth is missing.
    """
    truth, metadata = read_truth([file]), read_metadata([file])
    rows = list(whole_rows(file, COLUMNS))
    if missing := [row["id"] for row in rows if row["id"] not in truth]:
        raise ValueError(
            f"{sidecar_of(file)}: no truth for {len(missing)} of {len(rows)} rows, {missing[0]} among them"
        )
    return {row["id"]: as_question(row, truth[row["id"]], metadata.get(row["id"])) for row in rows}


def as_question(row: Mapping[str, Any], truth: str, metadata: str | None) -> Question:
    """A row of a benchmark with its truth and what is kept beside that, a JSON object."""
    return Question(
        id=row["id"],
        data_source=row["data_source"],
        text="\n".join(message["content"] for message in row["prompt"]),
        question_type=row["question_type"],
        choices=tuple(row["choices"]) if row.get("choices") else None,
        truth=truth,
        metadata=json.loads(metadata) if metadata else {},
    )
