"""Score responses that lie there: by the benchmark's own rule, and beside it by the project's. Generates nothing.

    python -m mmupt.evaluation.score runs/eval/Qwen2.5-VL-7B-Instruct/mathvista.jsonl [...]

For each file and benchmark in it a table goes to the console and into `NAME.scores.json` beside the file: greedy
accuracy, mean@k, pass@k and maj@k, each labelled with the rule that made it, the breakdowns of the benchmark's authors,
and We-Math's further scores. One JSON line for each response, with what was extracted, the truth and all verdicts, goes
into `NAME.verdicts.jsonl`. Lines that cannot be used are named, and the others scored.

    python -m mmupt.evaluation.score FILE --judge-url http://localhost:8000/v1 --judge-model NAME

asks a judge model where the benchmark's authors do; its replies are kept in `NAME.judge.jsonl`, so that none is asked
for twice.
"""

import argparse
import os
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from mmupt.evaluation.benchmark_scores import render, scores_by_benchmark
from mmupt.evaluation.judge_client import Judge, JudgeError
from mmupt.evaluation.judge_verdicts import describe, judge_verdicts, kept_path
from mmupt.evaluation.verdicts import EXTRACTIONS, AnyExtraction, judge_file, write_verdicts
from verl_ext.files import write_json

Number = TypeVar("Number", int, float)


def score_file(file: Path, extraction: AnyExtraction | None = None, judge: Judge | None = None) -> list[dict[str, Any]]:
    """Score one file of responses and write what the module says beside it; name the bad lines on stderr.

    Returns:
        The `scores_of` each benchmark; with a judge, `not_judged` is the number of its responses about which a request
        failed, and where there is any, no figure is by the judge.

    Raises:
        JudgeError: the judge cannot be asked at all.
        FileNotFoundError: the file or its parameters are missing.
        ValueError: a question without a truth or without the extraction, or no line that can be used.
    """
    judged = judge_file(file, extraction)
    for line, why in judged.bad_lines:
        print(f"{file}, line {line}, is left out: {why}", file=sys.stderr)
    if not judged.verdicts:
        raise ValueError(f"{file}: none of its {len(judged.bad_lines)} lines can be scored")
    verdicts = judged.verdicts
    failures: Counter[str] = Counter()
    if judge:
        judgement = judge_verdicts(verdicts, judged.questions, judge, kept_path(file))
        verdicts = judgement.verdicts
        failures.update(judged.questions[one.response.id].data_source for one, _ in judgement.failures)
        if judgement.failures:
            print(f"{file}: {describe(judgement.failures)}", file=sys.stderr)
    found = scores_by_benchmark(verdicts, judged.questions)
    if judge:
        found = [{**one, "not_judged": failures[one["benchmark"]]} for one in found]
    write_verdicts(file.with_suffix(".verdicts.jsonl"), verdicts, judged.questions)
    write_json(file.with_suffix(".scores.json"), found)
    return found


def _or_null(kind: type[Number]) -> Callable[[str], Number | None]:
    """Read a number, or None from "null"."""

    def number(text: str) -> Number | None:
        return None if text == "null" else kind(text)

    number.__name__ = f"{kind.__name__} or null"
    return number


def main() -> None:
    """Score the files of the command line."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("files", type=Path, nargs="+", help="files of responses by mmupt.evaluation.evaluate")
    parser.add_argument(
        "--extraction", choices=EXTRACTIONS, help="where answers stand; default: as the responses were asked"
    )
    parser.add_argument("--judge-url", help="OpenAI-compatible endpoint of a judge model, http://localhost:8000/v1")
    parser.add_argument("--judge-model", help="name under which the endpoint serves it")
    parser.add_argument("--judge-key-variable", help="environment variable with its key; default: OPENAI_API_KEY")
    parser.add_argument(
        "--judge-temperature", type=_or_null(float), default=0.0, help="null: not sent; default: %(default)s"
    )
    parser.add_argument(
        "--judge-max-tokens",
        type=_or_null(int),
        default=256,
        help="longest reply, null: not sent; default: %(default)s",
    )
    parser.add_argument(
        "--judge-max-completion-tokens", type=_or_null(int), help="the same under its newer name; default: not sent"
    )
    parser.add_argument(
        "--judge-without-model-list", action="store_true", help="ask an endpoint that has no list of models"
    )
    arguments = parser.parse_args()
    if bool(arguments.judge_url) != bool(arguments.judge_model):
        parser.error("--judge-url and --judge-model belong together")
    judge = None
    if arguments.judge_url:
        judge = Judge(
            arguments.judge_url,
            arguments.judge_model,
            temperature=arguments.judge_temperature,
            max_tokens=arguments.judge_max_tokens,
            max_completion_tokens=arguments.judge_max_completion_tokens,
            list_models=not arguments.judge_without_model_list,
        )
    if variable := arguments.judge_key_variable:
        if judge is None:
            parser.error("--judge-key-variable without --judge-url")
        if variable not in os.environ:
            parser.error(f"--judge-key-variable: there is no environment variable {variable}")
        judge = replace(judge, key_variable=variable)
    not_judged = 0
    for file in arguments.files:
        try:
            scores = score_file(file, arguments.extraction, judge)
        except (FileNotFoundError, ValueError, JudgeError) as error:
            parser.exit(1, f"error: {error}\n")
        not_judged += sum(one.get("not_judged", 0) for one in scores)
        print(f"# {file}\n")
        print("\n\n".join(map(render, scores)) + "\n")
    if not_judged:
        parser.exit(1, f"error: {not_judged} responses are not judged yet\n")


if __name__ == "__main__":
    main()
