"""Replay the collapse alarm on a finished run: at which validation would it stop the run with these settings?

Prints for every validation the majority ratio since the previous validation and how far each measure is below its
best, then where the alarm would stop the run, even if it was off. Options that are left out are taken from the run.

    mmupt collapse runs/mmupt_tiny --z 1.5 --patience 1
"""

import argparse
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from mmupt.commands import as_messages


def run(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """Replay the history of the run."""
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run (`mmupt.run_folder`)")
    for option, kind in (("z", float), ("patience", int), ("min-fall", float)):
        name = option.replace("-", "_")
        parser.add_argument(
            f"--{option}", type=kind, default=argparse.SUPPRESS, help=f"replaces mmupt.stop_on_collapse.{name}"
        )
    arguments = parser.parse_args(words)
    file = arguments.run / "history.jsonl"
    for needed in (file, arguments.run / "config.yaml"):
        if not needed.is_file():
            parser.exit(1, f"error: {needed} is missing: `mmupt train` writes it into the folder of a run\n")
    from omegaconf import OmegaConf

    from mmupt.training.collapse_record import replay
    from mmupt.training.run_report import read_config
    from verl_ext.collapse import CollapseRule, History

    with as_messages(ValueError):
        stored = OmegaConf.select(read_config(arguments.run), "mmupt.stop_on_collapse") or {}
        names = [field.name for field in fields(CollapseRule)]
        # Runs of earlier versions lack newer keys, whose defaults apply.
        rule = CollapseRule(**{name: value for name, value in {**stored, **vars(arguments)}.items() if name in names})
        first = None
        for line, collapse in replay(History(file), rule):
            print(line)
            first = first or collapse
    print(f"The alarm stops the run here: {first}" if first else "The alarm does not stop the run.")
