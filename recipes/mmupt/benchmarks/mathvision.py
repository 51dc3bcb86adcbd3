r"""MATH-Vision: 3,040 competition questions in 16 subjects and five levels, and a testmini of 304 of them.

Every row has one image that merges everything the question and its options call "<image1>", "<image2>" ... The image
goes in front and the tags stay in the text, as in `geninput` of the authors' `models/Qwen-VL.py`, the source of the
official prompt.

`is_correct` reproduces the authors' `evaluation/evaluate.py` and `utils.py`, oddities included: it cleans the answer,
which is right if it equals the letter or the text of the true option, or the same number to two decimals. Cleaning
deletes spaces and degree signs from the answer but not from the option. A text that still has a unit or a percent sign
has no number and is compared as text: `21\mathrm{~cm}` is not `$21 \mathrm{~cm}$`, and `120` is not `$120^{\circ}$`.
`latex_value` evaluates LaTeX. The project's own comparison is a second, more lenient rule. The authors use no judge.
"""

import re
from collections.abc import Mapping
from string import ascii_uppercase
from typing import Any

from mmupt.benchmarks.benchmark import BENCHMARKS, Benchmark, Question, Rule
from mmupt.benchmarks.latex_value import latex_value
from mmupt.benchmarks.official_prompt import bare_question, is_number, with_images
from mmupt_data.hub import (
    Content,
    Holds,
    HubDataset,
    HubSplit,
    Layout,
    Licence,
    as_text,
    image_bytes,
    listed_choices,
    with_choices,
)
from mmupt_data.row_schema import PLACEHOLDER

BRACKETS = {"(": ")", "[": "]"}
PROMPT = (
    'Please solve the problem step by step and put your answer in one "\\boxed{}". If it is a multiple choice '
    'question, only one letter is allowed in the "\\boxed{}".\n'
)
# Options that only name parts of the drawing are not listed.
DRAWN = ("A", "B", "C", "D", "E")
# " B." or " (B)." at the end; "B", "(B)" or "(B) B" as the first line.
LETTER = re.compile(r"(?: (?:([A-E])|\(([A-E])\))\.)\Z|\A(?:([A-E])|\(([A-E])\)(?: \4)?)\n")
BOX = "oxed{"
STATEMENTS = ("the final answer is", "the answer is", "the correct answer is", "the answer should be")
# Replaced in this order, in lower case.
REPLACED = (
    (" ", ""), (r"\,", ""), ("∞", r"\infty"), (r"+\infty", r"\infty"), (r"\\", "\\"), ("\n", ""), (r"\text", ""),
    (r"\mbox", ""), ("bmatrix", "pmatrix"), (r"\left", ""), (r"\right", ""), (r"^{\circ}", ""), (r"^\circ", ""),
    ("{m}^3", ""), ("m^3", ""), ("{units}", ""), ("units", ""), ("{km}", ""), ("km", ""), (r"\!", ""),
    (r"\\", "\\"), ("tfrac", "frac"), ("dfrac", "frac"), (r"\$", ""), ("$", ""), (r"\%", ""), ("{.", "{0."),
)  # fmt: skip
FRACTION = re.compile(r"(-?[1-9][0-9]*|0)/(-?[1-9][0-9]*|0)")


def layout(image: str) -> Layout:
    """The layout with the merged image in this column."""

    def read(row: Mapping[str, Any]) -> Content:
        choices = tuple(map(as_text, row["options"])) or None if row["options"] else None
        return Content(
            PLACEHOLDER + with_choices(as_text(row["question"]), choices),
            (image_bytes(row[image]),),
            as_text(row["answer"]),
            id=as_text(row["id"]),
            question_type="multi_choice" if choices else "free_form",
            choices=choices,
            metadata={name: row[name] for name in ("level", "subject")},
        )

    columns: dict[str, Holds] = {
        "id": "text",
        "question": "text",
        "options": "list",
        "answer": "text",
        "level": "anything",
        "subject": "text",
        image: "image",
    }
    return Layout(columns, read)


def is_correct(answer: str | None, question: Question) -> bool:
    """Whether the cleaned answer equals the ground truth or the text of the option that it names."""
    if answer is None:
        return False
    answer = cleaned(answer)
    choice = dict(zip(ascii_uppercase, question.choices or (), strict=False)).get(question.truth, "")
    return equal(question.truth, answer) or equal(choice, answer)


def equal(truth: str, answer: str) -> bool:
    """Whether two texts are equal in lower case, as tuples or lists, or as numbers to two decimals."""
    truth, answer = truth.lower(), answer.lower()
    if not truth.replace(" ", "") or not answer.replace(" ", ""):
        return False
    if truth.strip() == answer.strip():
        return True
    truth, answer = elements(truth), elements(answer)
    if truth == answer:
        return True
    value = latex_value(truth)
    return value is not None and value == latex_value(answer)


def elements(text: str) -> str:
    """Evaluate the elements of a tuple or list; other texts and those with an element without a value are unchanged."""
    parts = text[1:-1].split(",")
    if BRACKETS.get(text[0]) != text[-1] or len(parts) < 2:
        return text
    values = [part if "infty" in part or part in ("a", "-a") else latex_value(part) for part in parts]
    return text if None in values else f"{text[0]}{','.join(map(str, values))}{text[-1]}"


def official_prompt(question: Question) -> str:
    """The image, the instruction, the question and its options. Tags stay, because the image shows them too."""
    choices = () if question.choices == DRAWN else question.choices or ()
    options = "".join(f"{option}\n" for option in listed_choices(choices))
    return with_images(f"{PROMPT}{bare_question(question)}\n{options}", question)


def extract(response: str, question: Question) -> str | None:
    """Return the last box; otherwise a letter or number at the end, the text after "the answer is", or everything.

    The answer is not cleaned; `is_correct` does that.
    """
    text = response.strip()
    if letters := ["".join(filter(None, found.groups())) for found in LETTER.finditer(text)]:
        text = min(letters)
    last = text.split("is ")[-1].rstrip(".")
    if is_number(last):
        text = last
    if BOX in text:
        text = _boxed(text[text.rindex(BOX) :])
    else:
        for statement in STATEMENTS:
            for spelling in (statement, statement.replace("the", "The")):
                stated = spelling in text
                text = text.split(spelling)[-1].strip()
                text = text.split("\n")[0].split(". ")[0] if stated else text
    return text.strip() or None


def cleaned(answer: str) -> str:
    """Clean an answer as the authors do: lower case, without spaces, `x=`, degree signs and some wrappers."""
    text = _boxed(answer.lower().replace("{}", ""))
    closing, opening = text.find("}"), text.find("{")
    if closing != -1 and (opening == -1 or closing < opening):
        text = text[:closing]
    text = text.split("=")[-1].split(r"\approx")[-1]
    for old, new in REPLACED:
        text = text.replace(old, new)
    text = f"0{text}" if text.startswith(".") else text
    if r"\sqrt" in text:
        text = _with_braces(text, r"\sqrt", 1)
    if "sqrt" in text:
        text = _with_braces(text, r"\frac", 2)
    if fraction := FRACTION.fullmatch("1/2" if text == "0.5" else text):
        text = rf"\frac{{{fraction[1]}}}{{{fraction[2]}}}"
    text = re.sub(r"\{([a-e])\}", r"\1", re.sub(r"\(([a-e])\)", r"\1", text))
    return text.rstrip(".").lstrip(":").strip()


def _boxed(text: str) -> str:
    """The text between the first box and the last brace, or the whole text if either is missing."""
    begin, end = text.find(BOX) + len(BOX), text.rfind("}")
    return text[begin:end] if BOX in text and end >= begin else text


def _with_braces(text: str, command: str, arguments: int) -> str:
    """Put braces around the arguments (one or two) of every `command` in a text."""
    first, *others = text.split(command)
    found = first
    for other in others:
        if other.startswith("{") or (arguments == 1 and not other):
            found += command + other
        elif len(other) < arguments:
            return text
        elif arguments == 1 or other[1] == "{":
            found += f"{command}{{{other[0]}}}{other[1:]}"
        else:
            found += f"{command}{{{other[0]}}}{{{other[1]}}}{other[2:]}"
    return found


def breakdowns(question: Question) -> dict[str, tuple[str, ...]]:
    """Level and subject."""
    return {"level": (str(question.metadata["level"]),), "subject": (question.metadata["subject"],)}


BENCHMARKS.register(
    Benchmark(
        data=HubDataset(
            name="mathvision",
            summary="MATH-Vision, 3,040 questions of competitions, and its testmini of 304",
            path="MathLLMs/MathVision",
            splits={"test": HubSplit("test", rows=3040), "testmini": HubSplit("testmini", rows=304)},
            layouts=(layout("decoded_image"), layout("image")),
            licence=Licence("MIT", "https://github.com/mathllm/MATH-V/blob/main/LICENSE"),
        ),
        split="test",
        rules=(Rule("official", 2, is_correct),),
        breakdowns=breakdowns,
        official_prompt=official_prompt,
        extract=extract,
    )
)
