"""Generate a model's responses to benchmarks, and score them.

`model` is a hub name, a model folder, a checkpoint, or the folder of a run. mmupt/evaluation/config/ documents every
key. After an interruption, the same command asks only questions without a response.

    mmupt eval model=Qwen/Qwen2.5-VL-7B-Instruct benchmarks=[mathvista,wemath] preset=greedy
    mmupt eval model=runs/mmupt_mathvista "files={mine:my/test.parquet}"
"""

import argparse
from collections.abc import Sequence

from mmupt.commands import add_settings, add_verbose, as_messages


def run(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """Evaluate the model."""
    add_settings(parser, "evaluation", "settings of the evaluation; `model` is required")
    add_verbose(parser)
    arguments = parser.parse_intermixed_args(words)
    from mmupt.console import session

    with session("mmupt eval", arguments.verbose):
        from mmupt.evaluation.evaluate import EvaluationError, evaluate, load_evaluation_config
        from mmupt.evaluation.generation import EngineError
        from mmupt.evaluation.judge_client import JudgeError

        with as_messages(EvaluationError, EngineError, JudgeError, BlockingIOError):
            evaluate(load_evaluation_config(arguments.overrides))
