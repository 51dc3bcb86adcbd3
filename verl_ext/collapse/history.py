"""The data for the collapse rule, stored in a file that a resumed run continues.

`history.jsonl` has one line per training step, `{"step": 12, "majority_ratio": 0.61}`, and one per
validation batch, `{"step": 10, "right": {"q1": [1.0, 0.0]}}` with the score of each response by question id.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from verl_ext.files import json_line, write_json_lines

# The score of each response, from 0 to 1, by question id.
Outcomes = dict[str, list[float]]


class History:
    """Majority ratios by training step, and validation outcomes by the training step of the validated policy.

    Raises:
        ValueError: a line of the file is not an entry; names file and line.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.majority_ratios: dict[int, float] = {}
        self.validations: dict[int, Outcomes] = {}
        lines = file.read_text().splitlines(keepends=True) if file.is_file() else []
        for number, line in enumerate(lines, start=1):
            # A kill may truncate the last line, which is then ignored.
            if line.endswith("\n"):
                try:
                    self._take(json.loads(line))
                except (ValueError, KeyError, TypeError) as error:
                    raise ValueError(f"{file}, line {number}, is no entry of a history: {error!r}") from error

    def continue_from(self, step: int) -> None:
        """Discard all entries after the step that the run resumes from."""
        self.majority_ratios = {earlier: ratio for earlier, ratio in self.majority_ratios.items() if earlier <= step}
        self.validations = {earlier: outcomes for earlier, outcomes in self.validations.items() if earlier <= step}
        entries: list[dict[str, Any]]
        entries = [{"step": earlier, "majority_ratio": ratio} for earlier, ratio in self.majority_ratios.items()]
        entries += [{"step": earlier, "right": outcomes} for earlier, outcomes in self.validations.items()]
        write_json_lines(self.file, entries)

    def add_majority_ratio(self, step: int, majority_ratio: float) -> None:
        """Add the majority ratio of a training step."""
        self._append({"step": step, "majority_ratio": majority_ratio})

    def add_validation(self, step: int, outcomes: Mapping[str, Sequence[float]]) -> None:
        """Add a validation batch after a step; replaces earlier outcomes of its questions at that step."""
        self._append({"step": step, "right": {question: list(right) for question, right in outcomes.items()}})

    def measures(self) -> dict[str, dict[int, dict[str, float]]]:
        """Return measure -> step -> question -> value.

        `accuracy` is the mean over the k responses to a question. If k > 1, `pass@k` is the best response's score.
        """
        k = max((len(right) for outcomes in self.validations.values() for right in outcomes.values()), default=0)
        measures = {"accuracy": fmean} | ({f"pass@{k}": max} if k > 1 else {})
        return {
            name: {
                step: {question: measure(right) for question, right in outcomes.items()}
                for step, outcomes in self.validations.items()
            }
            for name, measure in measures.items()
        }

    def _append(self, entry: dict[str, Any]) -> None:
        self._take(entry)
        with self.file.open("a") as file:
            file.write(json_line(entry))

    def _take(self, entry: Mapping[str, Any]) -> None:
        if "majority_ratio" in entry:
            self.majority_ratios[entry["step"]] = entry["majority_ratio"]
        else:
            self.validations.setdefault(entry["step"], {}).update(entry["right"])
