"""Score saved responses again, by the benchmark's own rule and by the project's. Generates nothing.

Writes NAME.scores.json with the scores and NAME.verdicts.jsonl with the verdict on every response beside each file.
With a judge, a model grades the responses where the authors of the benchmark use one; its replies are kept.

    mmupt score runs/eval/Qwen2.5-VL-7B-Instruct/mathvista.jsonl
    mmupt score runs/mathverse.jsonl --judge-url http://localhost:8000/v1 --judge-model NAME
"""

import argparse
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from mmupt.commands import add_answer_settings, as_messages

if TYPE_CHECKING:
    from mmupt.evaluation.judge_client import Judge

Number = TypeVar("Number", int, float)


def run(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """Score the files of the command line."""
    parser.add_argument("files", type=Path, nargs="+", help="files of responses, NAME.jsonl")
    add_answer_settings(parser)
    parser.add_argument("--judge-url", help="OpenAI-compatible endpoint of a judge model, http://localhost:8000/v1")
    parser.add_argument("--judge-model", help="name under which the endpoint serves it")
    parser.add_argument("--judge-key-variable", help="environment variable with its key; default: OPENAI_API_KEY")
    parser.add_argument(
        "--judge-temperature", type=_or_null(float), default=0.0, help="null: not sent; default: %(default)s"
    )
    parser.add_argument(
        "--judge-max-tokens", type=_or_null(int), default=256, help="longest reply, null: not sent; default: 256"
    )
    parser.add_argument(
        "--judge-max-completion-tokens", type=_or_null(int), help="the same under its newer name; default: not sent"
    )
    parser.add_argument(
        "--judge-without-model-list", action="store_true", help="ask an endpoint that has no list of models"
    )
    arguments = parser.parse_args(words)
    from mmupt.evaluation.benchmark_scores import render
    from mmupt.evaluation.judge_client import JudgeError
    from mmupt.evaluation.score_files import score_file

    judge = _judge(parser, arguments)
    not_judged = 0
    for file in arguments.files:
        with as_messages(FileNotFoundError, ValueError, JudgeError):
            scores = score_file(file, arguments.extraction, judge, arguments.rule)
        not_judged += sum(one.not_judged or 0 for one in scores)
        print(f"# {file}\n")
        print("\n\n".join(map(render, scores)) + "\n")
    if not_judged:
        parser.exit(1, f"error: {not_judged} responses are not judged yet\n")


def _judge(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> "Judge | None":
    from mmupt.evaluation.judge_client import Judge

    if bool(arguments.judge_url) != bool(arguments.judge_model):
        parser.error("--judge-url and --judge-model belong together")
    variable = arguments.judge_key_variable
    if not arguments.judge_url:
        if variable:
            parser.error("--judge-key-variable without --judge-url")
        return None
    judge = Judge(
        arguments.judge_url,
        arguments.judge_model,
        temperature=arguments.judge_temperature,
        max_tokens=arguments.judge_max_tokens,
        max_completion_tokens=arguments.judge_max_completion_tokens,
        list_models=not arguments.judge_without_model_list,
    )
    if variable is None:
        return judge
    if variable not in os.environ:
        parser.error(f"--judge-key-variable: there is no environment variable {variable}")
    return replace(judge, key_variable=variable)


def _or_null(kind: type[Number]) -> Callable[[str], Number | None]:
    """Read a number, or None from "null"."""

    def number(text: str) -> Number | None:
        return None if text == "null" else kind(text)

    number.__name__ = f"{kind.__name__} or null"
    return number
