"""Score responses that lie there: by the benchmark's own rule, and beside it by the project's. Generates nothing.

    python -m recipes.mmupt.score runs/mmupt_mathvista/evaluation/after.jsonl [...]

A file of responses is one by `recipes.mmupt.evaluate`, whose parameters name the data that it answers. For each file
and benchmark in it a table goes to the console and into `NAME.scores.json` beside the file: greedy accuracy, mean@k,
pass@k and maj@k, each labelled with the rule that made it, the breakdowns of the benchmark's authors, and We-Math's
further scores. One JSON line for each response, with what was extracted, the truth and all verdicts, goes into
`NAME.verdicts.jsonl`.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from recipes.mmupt.benchmarks import BENCHMARKS, Question, read_questions
from recipes.mmupt.responses import Mode, Response, read_parameters, read_responses, write_atomically
from verl_ext.answers import Extraction, correct, extract_answer
from verl_ext.scores import Score, maj_at_k, mean_at_k, pass_at_k

# The project's comparison of answers, see docs/answers.md.
OWN_RULE = "own"


class Verdict(NamedTuple):
    """What became of one response: its extracted answer, and by rule whether that is right."""

    response: Response
    answer: str | None
    right: dict[str, bool]


def judge(responses: Iterable[Response], questions: Mapping[str, Question], extraction: Extraction) -> list[Verdict]:
    """Judge every response by all rules of its question; ValueError for a response to none of the questions."""
    verdicts = []
    for response in responses:
        if response.id not in questions:
            raise ValueError(f"there is no question {response.id!r} in the data of these responses")
        question = questions[response.id]
        answer = extract_answer(response.response, extraction)
        right = {OWN_RULE: correct(answer, question.truth, choices=question.choices)}
        if benchmark := BENCHMARKS.get(question.data_source):
            right[benchmark.rule] = benchmark.is_correct(answer, question)
        verdicts.append(Verdict(response, answer, right))
    return verdicts


def scores_of(verdicts: Sequence[Verdict], questions: Mapping[str, Question]) -> dict[str, Any]:
    """The scores of the responses to one benchmark, as JSON can hold them.

    `accuracy` maps a rule and a score ("greedy", "mean@4", "pass@4", "maj@4") to {"value", "standard_error",
    "questions"}; `breakdowns` the greedy accuracy by the rule of the benchmark to its labels; `further` what only this
    benchmark has, of greedy responses. Without those the first sample of each question stands in for the last two.
    """
    (source,) = {questions[verdict.response.id].data_source for verdict in verdicts}
    benchmark = BENCHMARKS.get(source)
    rule = benchmark.rule if benchmark else OWN_RULE
    modes: dict[Mode, dict[str, list[Verdict]]] = {"greedy": defaultdict(list), "sample": defaultdict(list)}
    for verdict in verdicts:
        modes[verdict.response.mode][verdict.response.id].append(verdict)
    accuracy = {
        f"{name}, {_mode_name(mode, by_question)}": _summary(by_question, name)
        for name in dict.fromkeys((rule, OWN_RULE))
        for mode, by_question in modes.items()
        if by_question
    }
    if modes["sample"]:
        accuracy |= _of_samples(modes["sample"], questions, rule)
    first = {id_: of_question[0] for id_, of_question in (modes["greedy"] or modes["sample"]).items()}
    found: dict[str, Any] = {"benchmark": source, "rule": rule, "accuracy": accuracy}
    if benchmark:
        found["breakdowns"] = _breakdowns({id_: verdict.right[rule] for id_, verdict in first.items()}, questions)
        if benchmark.scores:
            asked = [questions[id_] for id_ in first]
            found["further"] = benchmark.scores({id_: verdict.right[rule] for id_, verdict in first.items()}, asked)
    return found


def _mode_name(mode: Mode, by_question: Mapping[str, Sequence[Verdict]]) -> str:
    counts = sorted({len(verdicts) for verdicts in by_question.values()})
    if len(counts) > 1:
        raise ValueError(f"questions have {counts[0]} to {counts[-1]} {mode} responses: they must have as many each")
    return "greedy" if mode == "greedy" else f"mean@{counts[0]}"


def _summary(by_question: Mapping[str, Sequence[Verdict]], rule: str) -> dict[str, float]:
    return _as_json(mean_at_k([[verdict.right[rule] for verdict in verdicts] for verdicts in by_question.values()]))


def _of_samples(
    by_question: Mapping[str, Sequence[Verdict]], questions: Mapping[str, Question], rule: str
) -> dict[str, dict[str, float]]:
    """pass@k by the rule of the benchmark, and maj@k by the project's, as a vote has to say who is equal to whom."""
    asked = [questions[id_] for id_ in by_question]
    k = len(next(iter(by_question.values())))
    right = [[verdict.right[rule] for verdict in verdicts] for verdicts in by_question.values()]
    found = {f"{rule}, pass@{k}": pass_at_k(right, k)}
    if k > 1:
        answers = [[verdict.answer for verdict in verdicts] for verdicts in by_question.values()]
        found[f"{OWN_RULE}, maj@{k}"] = maj_at_k(
            answers, [one.truth for one in asked], choices=[one.choices for one in asked]
        )
    return {name: _as_json(score) for name, score in found.items()}


def _as_json(score: Score) -> dict[str, float]:
    return {"value": score.value, "standard_error": score.standard_error, "questions": score.questions}


def _breakdowns(right: Mapping[str, bool], questions: Mapping[str, Question]) -> dict[str, dict[str, dict[str, float]]]:
    strata: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for id_, verdict in right.items():
        for name, labels in BENCHMARKS[questions[id_].data_source].strata(questions[id_]).items():
            for label in labels:
                strata[name][label].append(verdict)
    return {
        name: {
            label: {"value": sum(verdicts) / len(verdicts), "questions": len(verdicts)}
            for label, verdicts in sorted(labels.items())
        }
        for name, labels in strata.items()
    }


def render(scores: Mapping[str, Any]) -> str:
    """The scores of one benchmark as Markdown."""
    lines = [f"## {scores['benchmark']}", "", "| rule, responses | accuracy, % | questions |", "|---|---|---|"]
    for name, one in scores["accuracy"].items():
        lines.append(f"| {name} | {100 * one['value']:.2f} ± {100 * one['standard_error']:.2f} | {one['questions']} |")
    for name, value in scores.get("further", {}).items():
        lines.append(f"| {scores['rule']}, {name} | {100 * value:.2f} | |")
    for name, labels in scores.get("breakdowns", {}).items():
        lines += ["", f"| {name} | {scores['rule']}, % | questions |", "|---|---|---|"]
        lines += [f"| {label} | {100 * one['value']:.2f} | {one['questions']} |" for label, one in labels.items()]
    return "\n".join(lines)


def score_file(file: Path, extraction: Extraction = "boxed") -> list[dict[str, Any]]:
    """Score one file of responses and write what the module says beside it.

    Raises:
        FileNotFoundError: the file or its parameters are missing.
        ValueError: a response to no question, a question without a truth, or questions with different numbers of
        responses.
    """
    parameters = read_parameters(file)
    if parameters is None:
        raise FileNotFoundError(f"{file} with its parameters is missing: recipes.mmupt.evaluate makes both")
    questions: dict[str, Question] = {}
    for data in parameters["data"]:
        questions |= read_questions(data)
    verdicts = judge(read_responses(file), questions, extraction)
    by_source: dict[str, list[Verdict]] = defaultdict(list)
    for verdict in verdicts:
        by_source[questions[verdict.response.id].data_source].append(verdict)
    found = [scores_of(of_source, questions) for of_source in by_source.values()]
    rows = [
        {
            **verdict.response.__dict__,
            "answer": verdict.answer,
            "truth": questions[verdict.response.id].truth,
            "right": verdict.right,
        }
        for verdict in verdicts
    ]
    lines = "".join(f"{json.dumps(row)}\n" for row in rows)
    write_atomically(file.with_suffix(".verdicts.jsonl"), lines.encode())
    write_atomically(file.with_suffix(".scores.json"), f"{json.dumps(found, indent=2)}\n".encode())
    return found


def main() -> None:
    """Score the files of the command line."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("files", type=Path, nargs="+", help="files of responses by recipes.mmupt.evaluate")
    parser.add_argument(
        "--extraction", choices=("boxed", "answer_tag", "answer_is"), default="boxed", help="where answers stand"
    )
    arguments = parser.parse_args()
    for file in arguments.files:
        print(f"# {file}\n")
        print("\n\n".join(map(render, score_file(file, arguments.extraction))) + "\n")


if __name__ == "__main__":
    main()
