"""We-Math testmini: 1,740 questions with options. They are 525 problems, each with its two or three steps.

`ID` names a problem, and `key` the whole problem or one of its steps. The authors sort problems into four kinds by
whether the steps and the whole are right: insufficient knowledge (IK), inadequate generalisation (IG), complete mastery
(CM) and rote memorisation (RM).

`extract` follows the authors' `evaluation/four_dimensional_metrics.py`, in which only the letter counts as an answer.
Their repository has no prompt; other evaluations attribute the one here to them (docs/evaluation.md).
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from string import ascii_uppercase
from typing import Any, Literal

from mmupt.benchmarks.benchmark import BENCHMARKS, Benchmark, Question, Rule
from mmupt.benchmarks.official_prompt import bare_question, with_images
from mmupt_data.hub import Content, HubDataset, HubSplit, Layout, Licence, as_text, image_bytes, with_choices
from verl_ext.answers import extract_answer

# "A. 12 cm;B. 5 cm": after a semicolon, an option starts with a letter, a full stop and text. In "point ;O.;B. Yes", O
# is the name of a point.
OPTION = re.compile(r"(?:^|;)\s*([A-Z])\s*[.．]\s*(?=[^;\s])")  # noqa: RUF001
# "A. 45° B. 60° ;C. 120°": some semicolons are missing.
SPACED_OPTION = re.compile(r"(?:^|;|\s)\s*([A-Z])\s*[.．]\s*(?=[^;\s])")  # noqa: RUF001
Mastery = Literal["IK", "IG", "CM", "RM"]
WHOLE = "multi"
LETTERS = "ABCDEFGH"
# "B", "(B)", "B. 5 cm" and \\text{B}.
LETTER = re.compile(r"[\s(<{$]*(?:\\text\s*\{\s*)?\(?([A-H])(?![A-Za-z])")
PROMPT = """\
Now, we require you to solve a multiple-choice math question. Please briefly describe your thought process and provide \
the final answer(option).
Question: {question}
Option: {options}
Regarding the format, please answer following the template below, and be sure to include two <> symbols:
<Thought process>: <<your thought process>> <Answer>: <<your option>>"""


def options_of(option: str) -> tuple[str, ...] | None:
    """Split the options "A. ...;B. ..." into their texts, in order; None if their starts are unclear."""
    for pattern in (OPTION, SPACED_OPTION):
        _, *parts = pattern.split(option.strip())
        letters, texts = parts[::2], parts[1::2]
        if len(letters) > 1 and letters == list(ascii_uppercase[: len(letters)]):
            return tuple(text.strip().rstrip(";").strip() for text in texts)
    return None


def read(row: Mapping[str, Any]) -> Content:
    """Read a row of `We-Math/We-Math`; the answer is a letter. Options that cannot be split stay unchanged."""
    question, option = as_text(row["question"]), as_text(row["option"])
    choices = options_of(option)
    return Content(
        with_choices(question, choices) if choices else f"{question}\nChoices:\n{option}",
        (image_bytes(row["image_path"]),),
        as_text(row["answer"]),
        id=f"{row['ID']}@{row['key']}",
        question_type="multi_choice",
        choices=choices,
        metadata={name: row[name] for name in ("ID", "key", "question number", "knowledge concept", "option")},
    )


def is_correct(answer: str | None, question: Question) -> bool:
    """Whether the answer is the right letter or starts with it; the text of an option does not count."""
    found = None if answer is None else LETTER.match(answer)
    return found is not None and found[1] == question.truth.strip().upper()


def mastery_of(steps: Iterable[bool], whole: bool, strict: bool) -> Mastery:
    """Classify a problem. Unless `strict`, one right step is enough for complete mastery."""
    steps = list(steps)
    if not whole:
        return "IG" if all(steps) else "IK"
    return "CM" if (all(steps) if strict else any(steps)) else "RM"


def scores(verdicts: Mapping[str, bool], questions: Iterable[Question]) -> dict[str, float]:
    """Compute S1 to S3, and by strict and by loose mastery the shares of IK to RM, the score and the RM rate.

    The score is CM + IG / 2, the RM rate RM / (CM + RM); all values are shares of 1. The paper's column is the plain
    accuracy over all rows instead. Problems without a verdict on the whole and on each step are left out; if none is
    complete, the result is empty.

    Raises:
        ValueError: a problem has a step that two- and three-step problems do not have.
    """
    problems: dict[str, dict[str, bool]] = defaultdict(dict)
    for question in questions:
        problems[str(question.metadata["ID"])][str(question.metadata["key"])] = verdicts[question.id]
    kinds: dict[str, list[Mastery]] = {"strict": [], "loose": []}
    accuracy: dict[str, list[bool]] = {"S1": [], "S2": [], "S3": []}
    for problem, verdict in problems.items():
        # "2steps_1", "2steps_2", "2steps_multi"
        count = next(iter(verdict)).partition("steps_")[0]
        keys = [f"{count}steps_{step}" for step in (*range(1, int(count) + 1), WHOLE)] if count in ("2", "3") else []
        if unknown := verdict.keys() - set(keys):
            raise ValueError(f"We-Math problem {problem} has the steps {', '.join(sorted(unknown))}, which are unknown")
        if len(verdict) < len(keys):
            continue
        *steps, whole = (verdict[key] for key in keys)
        accuracy["S1"] += steps
        accuracy[f"S{count}"].append(whole)
        for name, of_kind in kinds.items():
            of_kind.append(mastery_of(steps, whole, strict=name == "strict"))
    if not kinds["strict"]:
        return {}
    found = {name: sum(right) / len(right) for name, right in accuracy.items() if right}
    for name, of_kind in kinds.items():
        shares = {kind: of_kind.count(kind) / len(of_kind) for kind in ("IK", "IG", "CM", "RM")}
        found |= {f"{name} {kind}": share for kind, share in shares.items()}
        found[f"{name} score"] = shares["CM"] + shares["IG"] / 2
        mastered = shares["CM"] + shares["RM"]
        found[f"{name} RM rate"] = shares["RM"] / mastered if mastered else 0.0
    return found


def problem_scores(verdicts: Mapping[str, bool], questions: Iterable[Question]) -> dict[str, dict[str, float]]:
    """The strict and the loose score of every problem by its ID: 1 for CM, 1/2 for IG, 0 otherwise.

    Their means are the scores of `scores`, which also determines which problems are left out and which raise.
    """
    rows: dict[str, list[Question]] = defaultdict(list)
    for question in questions:
        rows[str(question.metadata["ID"])].append(question)
    by_problem = {problem: scores(verdicts, of_problem) for problem, of_problem in rows.items()}
    return {
        name: {problem: of_problem[name] for problem, of_problem in by_problem.items() if of_problem}
        for name in ("strict score", "loose score")
    }


def official_prompt(question: Question) -> str:
    """The authors' template with the question and its options, "A. ...;B. ..." as in their file."""
    options = str(question.metadata["option"])
    # In one pass, because a question may contain braces.
    texts = {"{question}": bare_question(question).removesuffix(f"\nChoices:\n{options}"), "{options}": options}
    return with_images(re.sub(r"\{question\}|\{options\}", lambda name: texts[name[0]], PROMPT), question)


def extract(response: str, question: Question) -> str | None:
    """Return the box; otherwise the letter after the last "Answer", or at the start of a response without that word."""
    if boxed := extract_answer(response):
        return boxed
    text = re.sub("[<>:.]", "", response.split("Answer")[-1]).strip()
    return text[0] if text and text[0] in LETTERS else None


def breakdowns(question: Question) -> dict[str, tuple[str, ...]]:
    """Step and knowledge concept of the problem."""
    return {"step": (question.metadata["key"],), "knowledge concept": (str(question.metadata["knowledge concept"]),)}


BENCHMARKS.register(
    Benchmark(
        data=HubDataset(
            name="wemath",
            summary="We-Math testmini, 1,740 questions: 525 problems and their steps",
            path="We-Math/We-Math",
            splits={"testmini": HubSplit("testmini", rows=1740)},
            layouts=(
                Layout(
                    {
                        "ID": "anything",
                        "key": "text",
                        "question number": "anything",
                        "knowledge concept": "anything",
                        "question": "text",
                        "option": "text",
                        "answer": "text",
                        "image_path": "image",
                    },
                    read,
                ),
            ),
            licence=Licence("CC BY-NC 4.0", "https://github.com/We-Math/We-Math#-license"),
        ),
        split="testmini",
        rules=(Rule("official", 1, is_correct),),
        breakdowns=breakdowns,
        scores=scores,
        official_prompt=official_prompt,
        extract=extract,
        problem_scores=problem_scores,
    )
)
