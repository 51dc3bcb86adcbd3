"""Score responses that lie there: by the benchmark's own rule, and beside it by the project's. Generates nothing.

    python -m recipes.mmupt.score runs/eval/Qwen2.5-VL-7B-Instruct/mathvista.jsonl [...]

For each file and benchmark in it a table goes to the console and into `NAME.scores.json` beside the file: greedy
accuracy, mean@k, pass@k and maj@k, each labelled with the rule that made it, the breakdowns of the benchmark's authors,
and We-Math's further scores. One JSON line for each response, with what was extracted, the truth and all verdicts, goes
into `NAME.verdicts.jsonl`. Lines that cannot be used are named, and the others scored.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from recipes.mmupt.evaluation.responses import write_atomically
from recipes.mmupt.evaluation.scores import render, scores_by_benchmark
from recipes.mmupt.evaluation.verdicts import EXTRACTIONS, AnyExtraction, judge_file, write_verdicts


def score_file(file: Path, extraction: AnyExtraction | None = None) -> list[dict[str, Any]]:
    """Score one file of responses and write what the module says beside it; name the bad lines on stderr.

    Raises:
        FileNotFoundError: the file or its parameters are missing.
        ValueError: a question without a truth or without the extraction, or no line that can be used.
    """
    judged = judge_file(file, extraction)
    for line, why in judged.bad_lines:
        print(f"{file}, line {line}, is left out: {why}", file=sys.stderr)
    if not judged.verdicts:
        raise ValueError(f"{file}: none of its {len(judged.bad_lines)} lines can be scored")
    found = scores_by_benchmark(judged.verdicts, judged.questions)
    write_verdicts(file.with_suffix(".verdicts.jsonl"), judged.verdicts, judged.questions)
    write_atomically(file.with_suffix(".scores.json"), f"{json.dumps(found, indent=2)}\n".encode())
    return found


def main() -> None:
    """Score the files of the command line."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("files", type=Path, nargs="+", help="files of responses by recipes.mmupt.evaluate")
    parser.add_argument(
        "--extraction", choices=EXTRACTIONS, help="where answers stand; default: as the responses were asked"
    )
    arguments = parser.parse_args()
    for file in arguments.files:
        try:
            scores = score_file(file, arguments.extraction)
        except (FileNotFoundError, ValueError) as error:
            parser.exit(1, f"error: {error}\n")
        print(f"# {file}\n")
        print("\n\n".join(map(render, scores)) + "\n")


if __name__ == "__main__":
    main()
