"""Set the scores of evaluations beside the paper's results. Generates nothing.

    mmupt report --paper runs/eval/A runs/eval/B --output runs/eval

Scores beside the responses in these folders, a judge model's among them, are taken as they are unless the responses are
newer or a rule has another version by now; the others are made, as by `mmupt score`. Writes `results.md`
(printed, too), `results.json` and `results.png` into the output folder.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmupt.benchmarks import rule_version
from mmupt.evaluation.paper_results import Evaluations, results_content, results_plot, results_table
from mmupt.evaluation.response_files import parameters_path, response_files
from mmupt.evaluation.score import score_file
from verl_ext.files import write_atomically, write_json


def read_scores(folders: Sequence[Path]) -> dict[str, dict[str, dict[str, Any]]]:
    """The scores of the evaluations in these folders: by their names, or by their paths where names are the same.

    Raises:
        FileNotFoundError: a folder has no file of responses.
        ValueError: two files of a folder answer the same benchmark, or as `score_file`.
    """
    names = Counter(folder.resolve().name for folder in folders)
    evaluations: dict[str, dict[str, dict[str, Any]]] = {}
    for folder in folders:
        found: dict[str, dict[str, Any]] = {}
        for file in response_files(folder):
            for scores in _scores_of_file(file):
                if scores["benchmark"] in found:
                    raise ValueError(f"{folder}: {file.name} is a second file that answers {scores['benchmark']}")
                found[scores["benchmark"]] = scores
        name = folder.resolve().name
        evaluations[name if names[name] == 1 else str(folder)] = found
    return evaluations


def _scores_of_file(file: Path) -> list[dict[str, Any]]:
    found = file.with_suffix(".scores.json")
    made_of = [path for path in (file, parameters_path(file)) if path.is_file()]
    if found.is_file() and found.stat().st_mtime >= max(path.stat().st_mtime for path in made_of):
        scores = list(json.loads(found.read_text()))
        outdated = [one["rule"] for one in scores if not _is_current(one)]
        if not outdated:
            return scores
        if judges := [rule for rule in outdated if rule.startswith("judge ")]:
            raise ValueError(
                f"{found} has scores by another version of the rule {judges[0]!r}: run `mmupt score {file}` "
                "with the judge again, which is asked only what it was not asked yet"
            )
    return score_file(file)


def _is_current(scores: Mapping[str, Any]) -> bool:
    """Whether scores were made by the rules as they are now."""
    versions = scores.get("versions", {})
    return scores["rule"] in versions and all(
        version == rule_version(scores["benchmark"], rule) for rule, version in versions.items()
    )


def write_results(output: Path, evaluations: Evaluations) -> str:
    """Write the three files that the module describes into a folder and return the table."""
    output.mkdir(parents=True, exist_ok=True)
    table = results_table(evaluations)
    write_atomically(output / "results.png", results_plot(evaluations))
    write_json(output / "results.json", results_content(evaluations))
    write_atomically(
        output / "results.md", f"# Beside the paper\n\n{table}\n\n![Scores beside the paper's](results.png)\n"
    )
    return table
