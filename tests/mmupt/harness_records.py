"""Records of lmms-eval and VLMEvalKit, written from the questions of our benchmarks with the right answers."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmupt.benchmarks import Question, read_questions

Record = dict[str, Any]
SPLITS = {"mathvista": "testmini", "mathvision": "test", "mathverse": "testmini", "wemath": "testmini"}


def own_id(question: Question) -> str:
    """The id of a question in its benchmark."""
    return question.id.removeprefix(f"{question.data_source}-{SPLITS[question.data_source]}-")


def own_columns(question: Question) -> Record:
    """The columns that hold the benchmark's own id of a question."""
    if question.data_source == "wemath":
        return {name: question.metadata[name] for name in ("ID", "key")}
    column = {"mathvista": "pid", "mathvision": "id", "mathverse": "sample_index"}[question.data_source]
    return {column: own_id(question)}


def prompt_of(question: Question) -> str:
    """A prompt around a question, as both harnesses build it."""
    return f"Hint: answer at the end.\nQuestion:  {question.text.replace('<image>', '<image1>')} (Unit: cm)"


def boxed(question: Question) -> str:
    """A correct response to a question."""
    return f"so \\boxed{{{question.truth}}}"


def older_log(row: int, question: Question) -> Record:
    """A sample of lmms-eval that contains its row of the data set."""
    text = boxed(question)
    doc = {**own_columns(question), "question": question.text}
    return {"doc_id": row, "doc": doc, "target": question.truth, "resps": [[text]], "filtered_resps": ["A"], "score": 1}


def newer_log(row: int, question: Question) -> Record:
    """A sample of lmms-eval 0.7, with an id, if any, in the results of the task."""
    results: Record = {
        "mathvista": {"llm_as_judge_eval": {"question_id": own_id(question), "true_false": False}},
        "mathvision": {"mathvision_standard_eval": {"response": [boxed(question)], "scores": [False]}},
        "mathverse": {"gpt_eval_score": 0, "submission": {"sample_index": own_id(question)}},
        "wemath": {"wemath_loose": own_columns(question), "acc_score": 0.0},
    }[question.data_source]
    return {
        "doc_id": row,
        "target": question.truth,
        "filtered_resps": [boxed(question)],
        "input": prompt_of(question),
        **results,
    }


def predicted(row: int, question: Question) -> Record:
    """A row of VLMEvalKit's table of predictions."""
    columns: Record = {
        "mathvista": {"index": int(own_id(question)) if question.data_source == "mathvista" else 0},
        "mathvision": {"index": own_id(question)},
        "mathverse": {
            "index": row,
            **{name: question.metadata.get(name) for name in ("problem_index", "problem_version")},
        },
        "wemath": {"index": row, **(own_columns(question) if question.data_source == "wemath" else {})},
    }[question.data_source]
    return {
        **columns,
        "question": prompt_of(question),
        "answer": question.truth,
        "prediction": boxed(question),
        "hit": 0,
    }


def rows_of(data: Path, make: Callable[[int, Question], Record]) -> list[Record]:
    """Make a record of every question in a data file."""
    return [make(row, question) for row, question in enumerate(read_questions(data).values())]


def write_lines(file: Path, records: list[Record]) -> Path:
    file.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    return file


def write_table(file: Path, records: list[Record]) -> Path:
    """Write records as JSON, TSV or CSV, depending on the suffix."""
    if file.suffix == ".json":
        file.write_text(json.dumps(records))
        return file
    with file.open("w", newline="") as opened:
        delimiter = "\t" if file.suffix == ".tsv" else ","
        writer = csv.DictWriter(opened, list(records[0]), delimiter=delimiter, quoting=csv.QUOTE_ALL)
        writer.writeheader()
        writer.writerows(records)
    return file
