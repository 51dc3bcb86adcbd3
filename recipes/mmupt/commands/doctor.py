"""Check this machine and installation, and say how to fix problems. Changes nothing.

Checks versions against the pins, the plugin, GPUs and driver, flash-attn, memory, shared memory, disk, and leftovers
of dead Ray clusters. Exits with 1 if it finds a problem that would make runs fail.

    mmupt doctor
    mmupt doctor --run-folder /scratch/runs --json
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path


def run(parser: argparse.ArgumentParser, words: Sequence[str]) -> int:
    """Print the findings; return 1 if there is a problem, else 0."""
    parser.add_argument(
        "--run-folder",
        type=Path,
        default=Path("runs"),
        help="folder of runs, whose disk is checked (%(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    arguments = parser.parse_args(words)
    from mmupt.runtime.doctor import examine
    from mmupt.runtime.doctor_findings import as_json, as_text, worst

    findings = examine(arguments.run_folder, os.environ)
    print(as_json(findings) if arguments.json else as_text(findings))
    return int(worst(findings) == "problem")
