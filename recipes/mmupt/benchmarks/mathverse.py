r"""MathVerse: by rule, as the official score asks a judge model twice, to extract the answer and to compare it.

Options are lines "A:..." in the question. Some truths are no single letter: "(C)" and "C." say C; "C\nD" takes either;
what is no letter of an option ("F", "False") is compared as any answer is.
"""

import re

from recipes.mmupt.benchmarks.question import Benchmark, Question
from verl_ext.answers import correct

OPTION = re.compile(r"^\(?([A-Z])\)?\s*[:.]\s*(.*)$", re.MULTILINE)
LETTERS = re.compile(r"\(?([A-Z])\)?\.?")


def is_correct(answer: str | None, question: Question) -> bool:
    """Whether the answer equals the truth, or one of them, by the project's comparison."""
    choices = options(question)
    lines = question.truth.splitlines() if question.question_type == "multi-choice" else [question.truth]
    letters = [LETTERS.fullmatch(line.strip()) for line in lines]
    truths = [found[1] for found in letters if found] if all(letters) else [question.truth]
    return any(correct(answer, truth, choices=choices) for truth in truths)


def options(question: Question) -> list[str] | None:
    """The texts of the options A, B, ... in the question; None where there are none, or not in order."""
    if question.question_type != "multi-choice":
        return None
    _, _, listed = question.text.partition("Choices:")
    found = OPTION.findall(listed or str(question.metadata.get("question_for_eval", "")).partition("Choices:")[2])
    in_order = [letter for letter, _ in found] == [chr(ord("A") + index) for index in range(len(found))]
    return [text.strip() for _, text in found] if len(found) > 1 and in_order else None


def strata(question: Question) -> dict[str, tuple[str, ...]]:
    """The version of the problem, and its subject and subfield."""
    metadata = question.metadata["metadata"]
    return {
        "problem_version": (question.metadata["problem_version"],),
        **{field: (str(metadata[field]),) for field in ("subject", "subfield", "source") if field in metadata},
    }


MATHVERSE = Benchmark("mathverse", "testmini", "rule-based", is_correct, strata)
