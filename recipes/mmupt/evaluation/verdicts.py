"""What is right about responses: every one judged by all rules of its benchmark. Generates nothing."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from recipes.mmupt.benchmarks import BENCHMARKS, OWN_RULE, Question, read_questions
from recipes.mmupt.evaluation.responses import BadLine, Response, read_parameters, read_responses, write_atomically
from verl_ext.answers import Comparison, Extraction, correct, extract_answer


class Verdict(NamedTuple):
    """What became of one response: its extracted answer, and by rule whether that is right, the leading rule first."""

    response: Response
    answer: str | None
    right: dict[str, bool]


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
    extraction: Extraction = "boxed",
    comparison: Comparison = Comparison(),
) -> list[Verdict]:
    """Judge responses to these questions: by the rule of their benchmark, and by the project's own comparison."""
    verdicts = []
    for response in responses:
        question = questions[response.id]
        answer = extract_answer(response.response, extraction)
        right: dict[str, bool] = {}
        benchmark = BENCHMARKS.get(question.data_source)
        if benchmark and benchmark.is_correct:
            right[benchmark.rule] = benchmark.is_correct(answer, question)
        right[OWN_RULE] = correct(answer, question.truth, comparison, question.choices)
        verdicts.append(Verdict(response, answer, right))
    return verdicts


def judge_file(file: Path, extraction: Extraction | None = None) -> JudgedFile:
    """Judge one file of responses; without an `extraction` answers stand where its parameters say, or in a box.

    Raises:
        FileNotFoundError: the file or its parameters are missing.
        ValueError: a question without a truth.
    """
    parameters = read_parameters(file)
    if parameters is None:
        raise FileNotFoundError(
            f"{file} with its parameters is missing: recipes.mmupt.evaluate makes both, and for responses made "
            "elsewhere recipes.mmupt.import_responses"
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
    """Write one JSON line a response: its fields, what was extracted, the truth, and the verdict by each rule."""
    lines = (
        {
            **asdict(verdict.response),
            "data_source": questions[verdict.response.id].data_source,
            "answer": verdict.answer,
            "truth": questions[verdict.response.id].truth,
            "right": verdict.right,
        }
        for verdict in verdicts
    )
    write_atomically(path, "".join(f"{json.dumps(line)}\n" for line in lines).encode())
