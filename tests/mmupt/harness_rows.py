"""Rows with the published columns of the four benchmarks, with oddities that make imports difficult.

The logs in `harness_logs/` were made from these rows: texts, answers and order must not change.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets import Image, List, Value
from harness_records import SPLITS, Record

sys.path.insert(0, str(Path(__file__).parent.parent / "mmupt_data"))
from hub_shaped import image, write_split

from mmupt.datasets import data_set


def _mathvista(
    pid: str,
    question: str,
    answer: str,
    choices: list[str] | None = None,
    answer_type: str = "integer",
    precision: float | None = None,
    unit: str | None = None,
) -> Record:
    kind = "multi_choice" if choices else "free_form"
    listed = "".join(f"\n({letter}) {choice}" for letter, choice in zip("ABCDE", choices or [], strict=False))
    return {
        "pid": pid,
        "question": question,
        "image": f"images/{pid}.jpg",
        "decoded_image": image(int(pid)),
        "choices": choices,
        "unit": unit,
        "precision": precision,
        "answer": answer,
        "question_type": kind,
        "answer_type": "text" if choices else answer_type,
        "metadata": {
            "category": "math-targeted-vqa",
            "context": "table",
            "grade": "high school",
            "language": "english",
            "skills": ["algebraic reasoning", "arithmetic reasoning"],
            "source": "drawn",
            "split": "testmini",
            "task": "figure question answering",
        },
        "query": f"Hint: Please answer the question at the end.\nQuestion: {question}"
        + (f"\nChoices:{listed}" if choices else ""),
    }


# Two questions appear twice, with different answers and with the same answer; another question begins like them.
MATHVISTA = [
    _mathvista("101", "Which bar is taller?", "left bar", ["left bar", "right bar"]),
    _mathvista("102", "Which bar is taller?", "right bar", ["left bar", "right bar"]),
    _mathvista("7", "How many dots are there?", "3"),
    _mathvista("8", "How many dots are there?", "3"),
    _mathvista("9", "How many dots are there? Count red ones twice.", "14"),
    _mathvista("10", "What is the slope of the line?", "1.5", answer_type="float", precision=1.0),
    _mathvista("11", "How much is the tea?", "2.25", answer_type="float", precision=2.0, unit="$"),
    _mathvista("12", "What are the heights?", "[1, 2, 2]", answer_type="list"),
    _mathvista("13", "图中三角形的面积是多少?\n", "12"),
    _mathvista("669", "What is x?  (in {cm})", "60°", ["60°", "45°", "30°", "No correct answer"]),
]


def _mathvision(id_: str, question: str, answer: str, options: list[str] | None = None) -> Record:
    return {
        "id": id_,
        "question": question,
        "options": options or [],
        "image": f"images/{id_}.jpg",
        "decoded_image": image(int(id_)),
        "answer": answer,
        "solution": None,
        "level": 1 + int(id_) % 5,
        "subject": "metric geometry - length",
    }


# Two questions without text have the same answer.
MATHVISION = [
    _mathvision("4", "Which number should be written in place of the question mark?\n<image1>", "60"),
    _mathvision("5", "Which kite has the longest string?\n<image1>", "C", ["A", "B", "C", "D", "E"]),
    _mathvision("528", "<image1>", "7"),
    _mathvision("529", "<image1>", "7"),
    _mathvision("2653", "Which piece fits in <image1>?", "B", [f"<image{number}>" for number in range(2, 7)]),
    _mathvision(
        "31", "<image1>\nHow long is $AB$ (in cm)?", "D", [f"${number} \\mathrm{{~cm}}$" for number in range(5)]
    ),
    _mathvision("32", "What is the ratio?\n<image1>\n", "A", ["$1: 2$", "$2: 1$", "$1: 3$", "$3: 1$", "$1: 1$"]),
    _mathvision("33", "What angle is at $A$?\n<image1>", "120"),
    _mathvision("34", "What fraction is red?\n<image1>", "\\frac{1}{2}"),
]

VERSIONS = ("Text Dominant", "Text Lite", "Vision Intensive", "Vision Dominant", "Vision Only")


def _mathverse(problem: int, version: int, premise: str, task: str, answer: str, kind: str) -> Record:
    # Text Lite and Vision Intensive have the same text here; Vision Only has no question.
    text = (f"{premise}, {task}", task, task, task.replace("find", "what is"), "")[version]
    prompt = "first conduct reasoning, and then answer the question"
    image_only = f"According to the question shown in the image, please {prompt}."
    return {
        "sample_index": str(5 * problem + version + 1),
        "problem_index": str(problem + 1),
        "problem_version": VERSIONS[version],
        "question": text,
        "image": image(500 + 5 * problem + version),
        "answer": answer,
        "question_type": kind,
        "metadata": {"split": "testmini", "source": "drawn", "subject": "Plane Geometry", "subfield": "Angle"},
        "query_wo": f"Please directly answer the question.\nQuestion: {text}" if text else image_only,
        "query_cot": f"Please {prompt}.\nQuestion: {text}" if text else image_only,
        "question_for_eval": f"{premise}, {task}",
    }


_PROBLEMS = (
    ("As shown in the figure, in triangle ABC, angle A is 80.0", "find x.\nChoices:\nA:80\nB:50", "B", "multi-choice"),
    ("As shown in the figure, AB is 5", "find the length of AC.", "\\sqrt{3}", "free-form"),
    ("Given the circle of radius 2", "find y.\nChoices:\nA:1\nB:2\nC:3\nD:3", "C\nD", "multi-choice"),
    ("As shown in the figure, AB is 6", "find the length of AC.", "\\sqrt{3}", "free-form"),
)
MATHVERSE = [_mathverse(problem, version, *fields) for problem, fields in enumerate(_PROBLEMS) for version in range(5)]


def _wemath(id_: str, key: str, question: str, option: str, answer: str, number: int) -> Record:
    return {
        "ID": id_,
        "split": "testmini",
        "knowledge concept": "Area of Circles",
        "question": question,
        "option": option,
        "answer": answer,
        "image_path": image(900 + number),
        "key": key,
        "question number": number,
        "knowledge concept description": "Area of Circles:\nThe area of a circle is pi times its radius squared.",
    }


# Options as published: with full stops and semicolons in the wrong places; one question appears twice.
WEMATH = [
    _wemath("2steps_1", "2steps_1", "The radius is (  ) cm", "A. 5;B. 10;C. 15; D. No correct answer", "A", 1),
    _wemath("2steps_1", "2steps_2", "The area is (  ) cm^2", "A. 25π; B. 10π;C. 5π;D. No correct answer", "A", 2),
    _wemath("2steps_1", "2steps_multi", "The circle's area is ( )", "A. 10π;B. 25π;C. 5π;D. No correct answer", "B", 3),
    _wemath("3steps_7", "3steps_1", "The radius is (  ) cm", "A. 5;B. 10;C. 15; D. No correct answer", "A", 4),
    _wemath("3steps_7", "3steps_2", "OA = ( ) m, AB = ( ) m", "A. 3, 4;B. 4, 3;C. 30, 40;D. No correct answer", "C", 5),
    _wemath("3steps_7", "3steps_3", "How far is it to point O?", "A. 2 m;B. 3 m;C. 6 m;D. No correct answer", "D", 6),
    _wemath(
        "3steps_7", "3steps_multi", "Which is right?", "A. v = 3; w = 2;B. v = 2;C. w = 3;D. No correct answer", "A", 7
    ),
]

ROWS: Mapping[str, list[Record]] = {
    "mathvista": MATHVISTA,
    "mathvision": MATHVISION,
    "mathverse": MATHVERSE,
    "wemath": WEMATH,
}
_TYPES: Mapping[str, Mapping[str, Any]] = {
    "mathvista": {
        "decoded_image": Image(),
        "choices": List(Value("string")),
        "precision": Value("float64"),
        "unit": Value("string"),
    },
    "mathvision": {"decoded_image": Image(), "options": List(Value("string")), "solution": Value("string")},
    "mathverse": {"image": Image()},
    "wemath": {"image_path": Image()},
}


def write_source(folder: Path, name: str) -> Path:
    """Write the rows of a benchmark in the hub's layout and return the folder."""
    write_split(folder, SPLITS[name], ROWS[name], _TYPES[name])
    if name == "mathvision":
        write_split(folder, "testmini", ROWS[name][:4], _TYPES[name])
    return folder


def prepared(folder: Path, name: str) -> Path:
    """Prepare the rows of a benchmark and return the data file."""
    source = write_source(folder / "source" / name, name)
    data_set(name).prepare(folder / name, str(source))
    return folder / name / f"{SPLITS[name]}.parquet"
