r"""MathVerse testmini: 788 problems in five versions, from all in words to all in the drawing.

The question is the benchmark's `question`. It is empty where all is in the drawing; `query_wo` then points to the
image. Two versions of a problem may have the same question and image, by design. The official prompt is the column
`query_cot`, which asks for reasoning and then for the letter or the value.

The official score calls a judge model twice, to extract the answer and to compare it; the score here is by rule.
Options are lines "A:..." below "Choices:" or "Choice:" in the question, some of them empty or several lines long. Some
ground truths are not single letters: "(C)" means C, "False" is the option with that text, and "C\nD" requires both
letters, because the authors' judge accepts only a complete match. Labels of free answers and of their ground truths are
dropped (`Area $=9$`).
"""

import re
from collections.abc import Mapping
from string import ascii_uppercase
from typing import Any

from mmupt.benchmarks.benchmark import BENCHMARKS, Benchmark, JudgeSteps, Question, Rule
from mmupt.benchmarks.judge_prompts import end_of, judge_prompt
from mmupt.benchmarks.official_prompt import with_images
from mmupt.benchmarks.prose_answers import number_in, option_in
from mmupt_data.hub import Content, HubDataset, HubSplit, Layout, Licence, as_text, image_bytes
from verl_ext.answers import correct, extract_answer

KEPT = ("problem_index", "problem_version", "metadata", "query_wo", "query_cot", "question_for_eval")
LIST = re.compile(r"^Choices?:", re.MULTILINE)
OPTION = re.compile(r"^\(?([A-Z])\)?[^\S\n]*[:.]", re.MULTILINE)
LETTERS = re.compile(r"\(?([A-Z])\)?\.?")
SEVERAL = re.compile(r"\bChoose\s+(?:\d+|two|three|all)\b", re.IGNORECASE)
# "A, C", "A and C", "AC"
SEVERAL_LETTERS = re.compile(r"(?<![A-Za-z])[A-Z](?![a-z])|(?<=[A-Z])[A-Z](?![a-z])")
# "Area $=9 \pi$", "Area of sector = 6": words of several letters are a label, a single letter is a variable.
LABEL = re.compile(r"\s*[A-Za-z]{2,}(?:\s+[A-Za-z]+)*\s*\$?\s*=\s*([^=]+?)\$?\s*")


def read(row: Mapping[str, Any]) -> Content:
    """Read a row of the configuration testmini of `AI4Math/MathVerse`; the question's text includes the options."""
    return Content(
        as_text(row["question"]).strip() or as_text(row["query_wo"]),
        (image_bytes(row["image"]),),
        as_text(row["answer"]),
        id=str(row["sample_index"]),
        question_type=as_text(row["question_type"]),
        metadata={name: row[name] for name in KEPT},
    )


def is_correct(answer: str | None, question: Question) -> bool:
    """Whether the answer has the letters of the ground truth, or equals it by the project's comparison."""
    if answer is None:
        return False
    if question.question_type != "multi-choice":
        return correct(unlabelled(answer), unlabelled(question.truth))
    choices = options(question)
    truths = [letter_of(line, choices) for line in question.truth.splitlines()]
    if SEVERAL.search(question.text) and set(SEVERAL_LETTERS.findall(answer)) == set(truths):
        return True
    return len(truths) == 1 and any(correct(answer, truth, choices=choices) for truth in truths)


def letter_of(truth: str, choices: list[str] | None) -> str:
    """Convert a line of the ground truth to a letter if it is one or the text of an option."""
    truth = truth.strip()
    if letter := LETTERS.fullmatch(truth):
        return letter[1]
    return ascii_uppercase[choices.index(truth)] if choices and choices.count(truth) == 1 else truth


def unlabelled(text: str) -> str:
    """Strip the label from a value."""
    label = LABEL.fullmatch(text)
    return label[1] if label else text


def options(question: Question) -> list[str] | None:
    """The texts of the options A, B, ... in the question; None if there are none or they are not in order."""
    if question.question_type != "multi-choice":
        return None
    for text in (question.text, str(question.metadata.get("question_for_eval", ""))):
        if header := LIST.search(text):
            listed = text[header.end() :]
            found = list(OPTION.finditer(listed))
            ends = [option.start() for option in found[1:]] + [len(listed)]
            texts = [listed[option.end() : end].strip() for option, end in zip(found, ends, strict=True)]
            if len(found) > 1 and "".join(option[1] for option in found) == ascii_uppercase[: len(found)]:
                return texts
    return None


def official_prompt(question: Question) -> str:
    """The column `query_cot`, after the image."""
    return with_images(str(question.metadata["query_cot"]), question)


def extract(response: str, question: Question) -> str | None:
    """Return the box; otherwise the option, the text after "the answer is", or the number that a response states.

    All but the box is found by this project's rules, which replace the authors' judge.
    """
    if boxed := extract_answer(response):
        return boxed
    stated = extract_answer(response, "answer_is")
    if question.question_type != "multi-choice":
        return stated or number_in(response, question.text)
    if SEVERAL.search(question.text):
        return stated or next((line for line in reversed(response.splitlines()) if line.strip()), "").strip() or None
    return option_in(response, options(question) or "ABCD") or stated


def ask_answer(response: str, question: Question) -> str:
    """Ask a judge for the answer in a response. Like the authors' prompt, this one does not show the question."""
    return judge_prompt("mathverse_answer", response=end_of(response))


def ask_agreement(answer: str, question: Question) -> str:
    """Ask a judge whether an answer to `question_for_eval` agrees with the ground truth."""
    asked = str(question.metadata["question_for_eval"])
    return judge_prompt("mathverse_agreement", question=asked, truth=question.truth, answer=answer)


def breakdowns(question: Question) -> dict[str, tuple[str, ...]]:
    """Version, subject, subfield and source of the problem."""
    metadata = question.metadata["metadata"]
    return {
        "problem_version": (question.metadata["problem_version"],),
        **{field: (str(metadata[field]),) for field in ("subject", "subfield", "source") if field in metadata},
    }


BENCHMARKS.register(
    Benchmark(
        data=HubDataset(
            name="mathverse",
            summary="MathVerse testmini, 788 problems in five versions",
            path="AI4Math/MathVerse",
            splits={"testmini": HubSplit("testmini", rows=3940)},
            layouts=(
                Layout(
                    {
                        "sample_index": "anything",
                        "problem_index": "anything",
                        "problem_version": "text",
                        "question": "text",
                        "image": "image",
                        "answer": "text",
                        "question_type": "text",
                        "metadata": "anything",
                        "query_wo": "text",
                        "query_cot": "text",
                        "question_for_eval": "text",
                    },
                    read,
                ),
            ),
            configuration="testmini",
            licence=Licence("MIT", "https://github.com/ZrrSkywalker/MathVerse/blob/main/LICENSE"),
        ),
        split="testmini",
        rules=(Rule("rule-based", 4, is_correct),),
        breakdowns=breakdowns,
        official_prompt=official_prompt,
        extract=extract,
        # The authors ask their judge about every response.
        judge=JudgeSteps(None, ask_answer, ask_agreement),
    )
)
