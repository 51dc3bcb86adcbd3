r"""MathVerse: by rule, as the official score asks a judge model twice, to extract the answer and to compare it.

Options are lines "A:..." in the question. Some truths are no single letter: "(C)" and "C." say C; "C\nD" takes either;
what is no letter of an option ("F", "False") is compared as any answer is. The authors' prompt is the column
`query_cot`, which asks for reasoning and then for the letter, or the value, at the end.
"""

import re

from recipes.mmupt.benchmarks.judged import end_of, fill
from recipes.mmupt.benchmarks.official import letter_of, number_in, with_images
from recipes.mmupt.benchmarks.question import Benchmark, Judged, Question, Rule
from verl_ext.answers import correct, extract_answer

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


def official_prompt(question: Question) -> str:
    """The column `query_cot`, the image in front."""
    return with_images(str(question.metadata["query_cot"]), question)


def extract(response: str, question: Question) -> str | None:
    """The box; else what follows "the answer is", else the letter or the number at the end.

    From the box on these are rules of this project, in place of the authors' judge.
    """
    if boxed := extract_answer(response):
        return boxed
    stated = extract_answer(response, "answer_is")
    if question.question_type == "multi-choice":
        return letter_of(response, len(options(question) or "ABCD")) or stated
    return stated or number_in(response)


def plain(response: str, question: Question) -> str | None:
    """None: the authors ask their judge about every response."""
    return None


def ask_answer(response: str, question: Question) -> str:
    """Ask a judge for the answer of a response; as with the authors, it is not shown the question."""
    return fill("mathverse_answer", response=end_of(response))


def ask_agreement(answer: str, question: Question) -> str:
    """Ask a judge whether an answer agrees with the truth, to the column `question_for_eval`."""
    asked = str(question.metadata["question_for_eval"])
    return fill("mathverse_agreement", question=asked, truth=question.truth, answer=answer)


def strata(question: Question) -> dict[str, tuple[str, ...]]:
    """The version of the problem, and its subject and subfield."""
    metadata = question.metadata["metadata"]
    return {
        "problem_version": (question.metadata["problem_version"],),
        **{field: (str(metadata[field]),) for field in ("subject", "subfield", "source") if field in metadata},
    }


MATHVERSE = Benchmark(
    "mathverse",
    "testmini",
    (Rule("rule-based", 2, is_correct),),
    strata,
    official_prompt=official_prompt,
    extract=extract,
    judged=Judged(plain, ask_answer, ask_agreement),
)
