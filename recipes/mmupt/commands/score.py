"""Score saved responses again, by the benchmark's own rule and by this project's. Generates nothing.

Writes NAME.scores.json with the scores and NAME.verdicts.jsonl with the verdict on every response next to each file.
Some benchmarks are scored by a judge model, which --judge-url and --judge-model name; its replies are saved.

    mmupt score runs/eval/Qwen2.5-VL-7B-Instruct
    mmupt score runs/mathverse.jsonl --judge-url http://localhost:8000/v1 --judge-model NAME
"""

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from mmupt.commands import add_answer_settings, as_messages
from verl_ext.counts import pluralize

if TYPE_CHECKING:
    from mmupt.evaluation.judge_client import Judge

Number = TypeVar("Number", int, float)


def run(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """Score the files."""
    parser.add_argument("files", type=Path, nargs="+", help="response files, NAME.jsonl, or folders of them")
    add_answer_settings(parser)
    for option, kind, help_text in (
        ("url", str, "OpenAI-compatible endpoint of a judge model, http://localhost:8000/v1"),
        ("model", str, "name of the judge model at the endpoint"),
        ("key-variable", str, "environment variable with the API key (default: OPENAI_API_KEY)"),
        ("temperature", _or_null(float), "temperature; null: not sent (default: 0.0)"),
        ("max-tokens", _or_null(int), "max_tokens of a reply; null: not sent (default: 256)"),
        (
            "max-completion-tokens",
            _or_null(int),
            "newer name of max_tokens, for endpoints that need it (default: not sent)",
        ),
    ):
        parser.add_argument(f"--judge-{option}", type=kind, default=argparse.SUPPRESS, help=help_text)
    parser.add_argument(
        "--judge-without-model-list",
        dest="judge_list_models",
        action="store_false",
        default=argparse.SUPPRESS,
        help="do not check the model's name, for endpoints that do not list their models",
    )
    arguments = parser.parse_args(words)
    from mmupt.evaluation.benchmark_scores import render
    from mmupt.evaluation.judge_client import JudgeError
    from mmupt.evaluation.response_files import response_files
    from mmupt.evaluation.score_files import score_file

    judge = _judge(parser, arguments)
    not_judged = 0
    with as_messages(FileNotFoundError):
        files = [file for path in arguments.files for file in response_files(path)]
    for file in files:
        with as_messages(OSError, ValueError, JudgeError):
            scores = score_file(file, arguments.extraction, judge, arguments.rule)
        not_judged += sum(score.not_judged or 0 for score in scores)
        print(f"# {file}\n")
        print("\n\n".join(map(render, scores)) + "\n")
    if not_judged:
        parser.exit(1, f"error: {pluralize(not_judged, 'response is', 'responses are')} not judged yet\n")


def _judge(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> "Judge | None":
    from mmupt.evaluation.judge_client import Judge

    prefix = "judge_"
    settings = {name.removeprefix(prefix): value for name, value in vars(arguments).items() if name.startswith(prefix)}
    if settings and not {"url", "model"} <= settings.keys():
        parser.error("--judge-url and --judge-model belong together, and every other --judge option needs them")
    if (variable := settings.get("key_variable")) is not None and variable not in os.environ:
        parser.error(f"--judge-key-variable: the environment variable {variable} is not set")
    return Judge(**settings) if settings else None


def _or_null(kind: type[Number]) -> Callable[[str], Number | None]:
    """Return the type of an option that is a number or "null", which is read as None."""

    def number(text: str) -> Number | None:
        return None if text == "null" else kind(text)

    number.__name__ = f"{kind.__name__} or null"
    return number
