"""Let a model write questions about images, and keep those that are worth training on.

mmupt/synthesis/config/ documents every key, docs/synthesis.md every filter. Writes the questions, without answers, to
train.parquet in the output folder, with a report and a page of images and their questions. After an interruption, the
same command asks the model only for what is missing.

    mmupt synthesize model=Qwen/Qwen2.5-VL-7B-Instruct data=datasets/mmr1/train.parquet
    mmupt synthesize model=runs/mmupt_mathvista data=my/images.parquet output=runs/questions limit=100
"""

import argparse
from collections.abc import Sequence

from mmupt.commands import add_settings, add_verbose, as_messages


def run(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """Synthesize the questions."""
    add_settings(parser, "synthesis", "settings; `model` and `data` are required")
    add_verbose(parser)
    arguments = parser.parse_intermixed_args(words)
    from mmupt.console import session, show_result, shown_path

    with session("mmupt synthesize", arguments.verbose):
        from mmupt.synthesis.run_synthesis import SynthesisError, load_synthesis_config, synthesize

        with as_messages(SynthesisError, BlockingIOError):
            questions = synthesize(load_synthesis_config(arguments.overrides))
            show_result(f"\nThe questions are in {shown_path(questions)}")
