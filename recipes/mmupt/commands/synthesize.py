"""Let a model write questions about images, and keep those that are worth training on.

Every key is documented in mmupt/synthesis/config/, every filter in docs/synthesis.md. Writes the questions, without any
answer, to train.parquet in the output folder, with a report and a page of images and their questions. After an
interruption, the same command asks the model only what is missing.

    mmupt synthesize model=Qwen/Qwen2.5-VL-7B-Instruct data=datasets/mmr1/train.parquet
    mmupt synthesize model=runs/mmupt_mathvista data=my/images.parquet output=runs/questions limit=100
"""

import argparse
import sys
from collections.abc import Sequence

from mmupt.commands import add_verbose
from mmupt.completion import PACKAGE, presets_in, use_completer


def run(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """Synthesize the questions of the command line."""
    overrides_argument = parser.add_argument(
        "overrides", nargs="+", metavar="key=value", help="settings, `model` and `data` at least"
    )
    use_completer(overrides_argument, presets_in(PACKAGE / "synthesis" / "config"))
    add_verbose(parser)
    arguments = parser.parse_intermixed_args(words)
    from mmupt.console import session, show_result

    with session("mmupt synthesize", arguments.verbose):
        from mmupt.console.session import shown_path
        from mmupt.synthesis.run_synthesis import SynthesisError, load_synthesis_config, synthesize

        try:
            questions = synthesize(load_synthesis_config(arguments.overrides))
            show_result(f"\nThe questions are in {shown_path(questions)}")
        except (SynthesisError, BlockingIOError) as error:
            sys.exit(f"error: {error}")
