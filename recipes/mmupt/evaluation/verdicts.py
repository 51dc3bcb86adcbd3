"""What is right about responses: every one judged by all rules of its benchmark. Generates nothing."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from mmupt.benchmarks import BENCHMARKS, OWN_RULE, Question, read_questions
from mmupt.evaluation.response_files import BadLine, Response, as_object, read_parameters, read_responses
from verl_ext.answers import Comparison, Extraction, correct, extract_answer
from verl_ext.files import write_json_lines

# Besides those of `verl_ext.answers`, "official": where a response to the benchmark's own prompt answers.
AnyExtraction = Extraction | Literal["official"]
EXTRACTIONS: tuple[str, ...] = (*get_args(Extraction), "official")


class Reading(NamedTuple):
    """The answer that a judge model found in a response, None where it found none, and whether it replied readably."""

    answer: str | None
    readable: bool = True


class Verdict(NamedTuple):
    """What became of one response: its extracted answer, and by rule whether that is right, the leading rule first.

    `judged` is what a judge model says, whose verdict leads then; None where none was asked.
    """

    response: Response
    answer: str | None
    right: dict[str, bool]
    judged: Reading | None = None


@dataclass(frozen=True)
class JudgedFile:
    """A file of responses with the questions that it answers by id, a verdict a response, and the lines left out."""

    file: Path
    parameters: dict[str, Any]
    questions: dict[str, Question]
    verdicts: list[Verdict]
    bad_lines: list[BadLine]


def verdicts_of(
    responses: Iterable[Response],
    questions: Mapping[str, Question],
    extraction: AnyExtraction = "boxed",
    comparison: Comparison = Comparison(),
) -> list[Verdict]:
    """Judge responses to these questions: by the rule of their benchmark, and by the project's own comparison.

    A question that could not be asked is wrong by every rule.

    Raises:
        ValueError: the extraction is "official", and a question is of no benchmark that has one.
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
        right[OWN_RULE] = asked and correct(answer, question.truth, comparison, question.choices)
        verdicts.append(Verdict(response, answer, right))
    return verdicts


def answer_of(response: str, question: Question, extraction: AnyExtraction) -> str | None:
    """The answer of a response, None where it has none.

    Raises:
        ValueError: the extraction is "official", and the question is of no benchmark that has one.
    """
    if extraction != "official":
        return extract_answer(response, extraction)
    benchmark = BENCHMARKS.get(question.data_source)
    if benchmark is None or benchmark.extract is None:
        raise ValueError(
            f"{question.data_source} has no official prompt: choose another extraction, {', '.join(EXTRACTIONS[:-1])}"
        )
    return benchmark.extract(response, question)


def judge_file(file: Path, extraction: AnyExtraction | None = None) -> JudgedFile:
    """Judge one file of responses; without an `extraction` answers stand where its parameters say, or in a box.

    Raises:
        FileNotFoundError: the file or its parameters are missing.
        ValueError: a question without a truth, or one whose benchmark has no official extraction.
    """
    parameters = read_parameters(file)
    if parameters is None:
        raise FileNotFoundError(
            f"{file} with its parameters is missing: `mmupt eval` makes both, and `mmupt import-responses` does for "
            "responses that another program generated"
        )
    questions = questions_of(parameters)
    responses, bad_lines = read_responses(file, questions)
    extraction = extraction or parameters.get("extraction", "boxed")
    return JudgedFile(file, parameters, questions, verdicts_of(responses, questions, extraction), bad_lines)


def questions_of(parameters: Mapping[str, Any]) -> dict[str, Question]:
    """The questions that a file of responses with these parameters was to answer, by id, in their order.

    Raises:
        ValueError: a question without a truth.
    """
    questions: dict[str, Question] = {}
    for data in parameters["data"]:
        questions |= read_questions(data)
    return dict(islice(questions.items(), parameters.get("limit")))


def write_verdicts(path: Path, verdicts: Iterable[Verdict], questions: Mapping[str, Question]) -> None:
    """Write one JSON line a response: its fields, what was extracted, the truth, and the verdict by each rule.

    Where a judge model decided, `judged_answer` is what it found, and `judge_readable` whether all its replies could be
    read.
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
