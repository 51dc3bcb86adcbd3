"""Writes the scores of evaluations beside the paper's results, for `mmupt report --paper`. Generates nothing.

Scores saved beside the responses, including a judge model's, are reused. If the responses are newer or the schema or a
rule has changed, they are scored again, as by `mmupt score`. Scores by a judge are never replaced by others.
"""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmupt.benchmarks import rule_version
from mmupt.evaluation.benchmark_scores import BenchmarkScores
from mmupt.evaluation.paper_results import Evaluations, results_content, results_plot, results_table
from mmupt.evaluation.response_files import parameters_path, response_files
from mmupt.evaluation.score_files import score_file
from verl_ext.files import write_atomically, write_json


def read_scores(folders: Sequence[Path]) -> dict[str, dict[str, BenchmarkScores[Any]]]:
    """The scores of the evaluations in these folders, by folder name, or by path where two names are equal.

    Raises:
        FileNotFoundError: a folder has no file of responses.
        ValueError: two files in a folder answer the same benchmark, or from `score_file`.
    """
    names = Counter(folder.resolve().name for folder in folders)
    evaluations: dict[str, dict[str, BenchmarkScores[Any]]] = {}
    for folder in folders:
        found: dict[str, BenchmarkScores[Any]] = {}
        for file in response_files(folder):
            for scores in _scores_of_file(file):
                if scores.benchmark in found:
                    raise ValueError(f"{folder}: {file.name} is a second file that answers {scores.benchmark}")
                found[scores.benchmark] = scores
        name = folder.resolve().name
        evaluations[name if names[name] == 1 else str(folder)] = found
    return evaluations


def _scores_of_file(file: Path) -> list[BenchmarkScores[Any]]:
    found = file.with_suffix(".scores.json")
    made_of = [path for path in (file, parameters_path(file)) if path.is_file()]
    if found.is_file():
        is_newer = found.stat().st_mtime >= max(path.stat().st_mtime for path in made_of)
        content = json.loads(found.read_text())
        scores = [_current(saved) if is_newer else None for saved in content]
        if None not in scores:
            return [saved for saved in scores if saved]
        rules = [str(saved.get("rule")) for saved, current in zip(content, scores, strict=True) if current is None]
        if judges := [rule for rule in rules if rule.startswith("judge ")]:
            why = "by another version of the rule" if is_newer else "that are older than the responses, by"
            raise ValueError(
                f"{found} has scores {why} {judges[0]!r}: run `mmupt score {file}` with the judge again; saved replies "
                "are not requested again"
            )
    return score_file(file)


def _current(content: Any) -> BenchmarkScores[Any] | None:
    """Read the saved scores of one benchmark; None if the schema or the version of a rule differs."""
    try:
        scores = BenchmarkScores.from_json(content)
    except (KeyError, TypeError, AttributeError):
        return None
    versions = {rule: rule_version(scores.benchmark, rule) for rule in scores.versions}
    return scores if scores.versions == versions and scores.rule in versions else None


def write_results(output: Path, evaluations: Evaluations) -> str:
    """Write `results.md`, `results.json` and `results.png` into a folder and return the table."""
    output.mkdir(parents=True, exist_ok=True)
    table = results_table(evaluations)
    write_atomically(output / "results.png", results_plot(evaluations))
    write_json(output / "results.json", results_content(evaluations))
    write_atomically(
        output / "results.md", f"# Beside the paper\n\n{table}\n\n![Scores beside the paper's](results.png)\n"
    )
    return table
