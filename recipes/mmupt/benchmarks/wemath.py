"""We-Math: letters, and four kinds of problems by which of their steps are right.

By whether the sub-steps of a problem are right and whether the whole of it is, in the authors' words: insufficient
knowledge (IK), inadequate generalisation (IG), complete mastery (CM) and rote memorisation (RM). `extract` is that of
their `evaluation/four_dimensional_metrics.py`, whose letter is the only answer that counts there. Their repository has
no prompt: the one here is what other evaluations say is theirs (docs/evaluation.md).
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Literal

from mmupt.benchmarks.benchmark_question import Benchmark, Question, Rule
from mmupt.benchmarks.official_prompt import asked, with_images
from verl_ext.answers import extract_answer

Kind = Literal["IK", "IG", "CM", "RM"]
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


def is_correct(answer: str | None, question: Question) -> bool:
    """Whether the answer is the right letter, or begins with it; the text of the option is not what is asked for."""
    found = None if answer is None else LETTER.match(answer)
    return found is not None and found[1] == question.truth.strip().upper()


def kind_of(steps: Iterable[bool], whole: bool, strict: bool) -> Kind:
    """The kind of a problem; loosely, some right steps are enough for complete mastery."""
    steps = list(steps)
    if not whole:
        return "IG" if all(steps) else "IK"
    return "CM" if (all(steps) if strict else any(steps)) else "RM"


def scores(verdicts: Mapping[str, bool], questions: Iterable[Question]) -> dict[str, float]:
    """S1 to S3, and for strict and loose the shares of the four kinds, the score CM + IG / 2, the rate RM / (CM + RM).

    Shares of 1. The plain accuracy over all rows, which the paper's column is, is not among them. A problem without a
    verdict on its whole and on each of its steps is left out; nothing is returned where all are.

    Raises:
        ValueError: a problem has a step that is none of two or three.
    """
    problems: dict[str, dict[str, bool]] = defaultdict(dict)
    for question in questions:
        problems[str(question.metadata["ID"])][str(question.metadata["key"])] = verdicts[question.id]
    kinds: dict[str, list[Kind]] = {"strict": [], "loose": []}
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
            of_kind.append(kind_of(steps, whole, strict=name == "strict"))
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
    """The strict and the loose score of every problem by its ID, 1 for CM and 1/2 for IG; those of `scores` are means.

    Problems are left out and errors raised as there.
    """
    rows: dict[str, list[Question]] = defaultdict(list)
    for question in questions:
        rows[str(question.metadata["ID"])].append(question)
    found: dict[str, dict[str, float]] = {"strict score": {}, "loose score": {}}
    for problem, of_problem in rows.items():
        one = scores(verdicts, of_problem)
        for name, by_problem in found.items():
            if one:
                by_problem[problem] = one[name]
    return found


def official_prompt(question: Question) -> str:
    """The template of the authors with the question and its options, "A. ...;B. ..." as in their file."""
    options = str(question.metadata["option"])
    # In one pass, as a question may have braces.
    texts = {"{question}": asked(question).removesuffix(f"\nChoices:\n{options}"), "{options}": options}
    return with_images(re.sub(r"\{question\}|\{options\}", lambda name: texts[name[0]], PROMPT), question)


def extract(response: str, question: Question) -> str | None:
    """The box; else the letter that follows the last "Answer", or opens a response without that word."""
    if boxed := extract_answer(response):
        return boxed
    text = re.sub("[<>:.]", "", response.split("Answer")[-1]).strip()
    return text[0] if text and text[0] in LETTERS else None


def strata(question: Question) -> dict[str, tuple[str, ...]]:
    """The step of the problem and its knowledge concept."""
    return {"step": (question.metadata["key"],), "knowledge concept": (str(question.metadata["knowledge concept"]),)}


WEMATH = Benchmark(
    "wemath",
    "testmini",
    (Rule("official", 1, is_correct),),
    strata,
    scores,
    official_prompt,
    extract,
    problem_scores=problem_scores,
)
