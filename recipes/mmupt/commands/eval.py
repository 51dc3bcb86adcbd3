"""Generate a model's responses to benchmarks, and score them.

MODEL is a hub name, a folder, or the folder of a run. Every key is documented in mmupt/evaluation/config/. After an
interruption, the same command asks only what has no response yet.

    mmupt eval model=Qwen/Qwen2.5-VL-7B-Instruct benchmarks=[mathvista,wemath] preset=greedy
    mmupt eval model=runs/mmupt_mathvista "files={mine:my/test.parquet}"
"""

import argparse
from collections.abc import Sequence

from mmupt.commands import add_settings, add_verbose, as_messages


def run(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """Evaluate the model of the command line."""
    add_settings(parser, "evaluation", "settings of the evaluation, `model` at least")
    add_verbose(parser)
    arguments = parser.parse_intermixed_args(words)
    from mmupt.console import session

    with session("mmupt eval", arguments.verbose):
        from mmupt.evaluation.evaluate import EvaluationError, evaluate, load_evaluation_config
        from mmupt.evaluation.generation import EngineError
        from mmupt.evaluation.judge_client import JudgeError

        with as_messages(EvaluationError, EngineError, JudgeError, BlockingIOError):
            evaluate(load_evaluation_config(arguments.overrides))
