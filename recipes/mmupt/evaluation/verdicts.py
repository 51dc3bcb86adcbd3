"""Judges responses by all rules of their benchmark. Generates nothing.

Every score, comparison and report reads files of responses with `judge_file`.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from mmupt.benchmarks import BENCHMARKS, OWN_RULE, Question, read_questions
from mmupt.evaluation.response_files import (
    BadLine,
    Response,
    as_object,
    parameters_path,
    read_parameters,
    read_responses,
)
from verl_ext.answers import AnswerRule, Comparison, Extraction, correct, extract_answer
from verl_ext.files import sha256, write_json_lines

# Those of `verl_ext.answers`, and "official": the benchmark's `extract` for responses to its own prompt.
AnyExtraction = Extraction | Literal["official"]
EXTRACTIONS: tuple[str, ...] = (*get_args(Extraction), "official")


class Reading(NamedTuple):
    """The answer that a judge model found in a response, if any, and whether its replies could be parsed."""

    answer: str | None
    readable: bool = True


class Verdict(NamedTuple):
    """The verdict on one response: its extracted answer, and by rule whether it is right, the leading rule first.

    `judged` is the reading of a judge model, whose rule then leads; None without a judge.
    """

    response: Response
    answer: str | None
    right: dict[str, bool]
    judged: Reading | None = None


@dataclass(frozen=True)
class JudgedFile:
    """A file of responses: the questions that it answers by id, one verdict per response, and the lines left out.

    `comparison` is the comparison of answers in the project's own rule and in votes.
    """

    file: Path
    parameters: dict[str, Any]
    questions: dict[str, Question]
    verdicts: list[Verdict]
    bad_lines: list[BadLine]
    comparison: Comparison = Comparison()

    def warnings(self) -> Iterator[str]:
        """Yield warnings about its scores: lines that are left out, and data that have changed since."""
        for data, digest in dict(self.parameters["data"]).items():
            if digest and sha256(Path(data)) != digest:
                yield f"{self.file}: {data} has changed since these responses; its ids may name other questions"
        for line, why in self.bad_lines:
            yield f"{self.file}, line {line}, is left out: {why}"


def verdicts_of(
    responses: Iterable[Response],
    questions: Mapping[str, Question],
    extraction: AnyExtraction = "boxed",
    comparison: Comparison = Comparison(),
) -> list[Verdict]:
    """Judge responses to these questions by the rules of their benchmark and by the project's comparison of answers.

    A question that could not be asked is wrong by every rule.

    Raises:
        ValueError: the extraction is "official", but the benchmark of a question has none.
    """
    verdicts = []
    for response in responses:
        question = questions[response.id]
        asked = response.not_asked is None
        answer = answer_of(response.response, question, extraction) if asked else None
        right: dict[str, bool] = {}
        benchmark = BENCHMARKS.get(question.data_source)
        for rule in benchmark.rules if benchmark else ():
            right[rule.name] = asked and rule.is_correct(answer, question)
        right[comparison_rule(comparison)] = asked and correct(answer, question.truth, comparison, question.choices)
        verdicts.append(Verdict(response, answer, right))
    return verdicts


def comparison_rule(comparison: Comparison) -> str:
    """The name of the rule that makes this comparison: the project's own, or a library."""
    return OWN_RULE if comparison.rule == "canonical" else comparison.rule


def answer_of(response: str, question: Question, extraction: AnyExtraction) -> str | None:
    """Extract the answer of a response, None if it has none.

    Raises:
        ValueError: the extraction is "official", but the benchmark of the question has none.
    """
    if extraction != "official":
        return extract_answer(response, extraction)
    benchmark = BENCHMARKS.get(question.data_source)
    if benchmark is None or benchmark.extract is None:
        raise ValueError(
            f"{question.data_source} has no official prompt: choose another extraction, {', '.join(EXTRACTIONS[:-1])}"
        )
    return benchmark.extract(response, question)


def judge_file(file: Path, extraction: AnyExtraction | None = None, rule: AnswerRule | None = None) -> JudgedFile:
    """Judge one file of responses with the answer settings in its parameters.

    `extraction` and `rule` replace the recorded values, which default to "boxed" and "canonical".

    Raises:
        FileNotFoundError: the file or its parameters are missing.
        ValueError: a question has no ground truth, its benchmark lacks the official extraction, or the recorded
            extraction or rule does not exist.
    """
    parameters = read_parameters(file)
    if parameters is None:
        missing = parameters_path(file) if file.is_file() else file
        raise FileNotFoundError(
            f"there is no file {missing}: `mmupt eval` writes responses and their parameters, and `mmupt "
            "import-responses` does so for responses of another program"
        )
    extraction = extraction or parameters.get("extraction", "boxed")
    try:
        if extraction not in EXTRACTIONS:
            raise ValueError(f"extraction={extraction!r} is none of {', '.join(EXTRACTIONS)}")
        comparison = Comparison(rule or parameters.get("rule", "canonical"))
    except ValueError as error:
        raise ValueError(f"{parameters_path(file)}: {error}") from error
    questions = questions_of(parameters)
    responses, bad_lines = read_responses(file, questions)
    verdicts = verdicts_of(responses, questions, extraction, comparison)
    return JudgedFile(file, parameters, questions, verdicts, bad_lines, comparison)


def questions_of(parameters: Mapping[str, Any]) -> dict[str, Question]:
    """Read the questions of a file with these parameters, by id, in order; ValueError without ground truth."""
    questions: dict[str, Question] = {}
    for data in parameters["data"]:
        questions |= read_questions(data)
    return dict(islice(questions.items(), parameters.get("limit")))


def write_verdicts(path: Path, verdicts: Iterable[Verdict], questions: Mapping[str, Question]) -> None:
    """Write one JSON line per response: its fields, the extracted answer, the ground truth, the verdict of each rule.

    With a judge model, `judged_answer` is its answer, and `judge_readable` whether its replies could be parsed.
    """
    lines = (
        {
            **as_object(verdict.response),
            "data_source": questions[verdict.response.id].data_source,
            "answer": verdict.answer,
            "truth": questions[verdict.response.id].truth,
            "right": verdict.right,
            **(
                {"judged_answer": verdict.judged.answer, "judge_readable": verdict.judged.readable}
                if verdict.judged
                else {}
            ),
        }
        for verdict in verdicts
    )
    write_json_lines(path, lines)
