"""The folder of a run as JSON values for the page. Keys that end in `html` hold HTML.

All text of rows and responses is escaped in that HTML (`mmupt.reports.formulas`) and plain everywhere else.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from mmupt.reports.html_page import shown, shown_question
from mmupt.synthesis.synthesized_dataset import CANDIDATES, read_candidates
from mmupt.training.collapse_record import STOP, read_stop
from mmupt.training.metric_series import Series, read_series
from mmupt.viewer.evaluation_pairs import COMPARISON, EvaluationPairs
from mmupt.viewer.file_cache import FileCache, readable
from mmupt.viewer.question_text import plain_question
from mmupt.viewer.row_pictures import RowPictures
from mmupt.viewer.voted_groups import VotedGroups
from verl_ext.collapse import History
from verl_ext.files import file_list
from verl_ext.metric_names import (
    ENTROPY,
    GRADIENT_NORM,
    KL_LOSS,
    MEAN_REWARD,
    RESPONSE_LENGTH,
    THROUGHPUT,
    VALIDATION_PREFIX,
    VOTE_PREFIX,
)

# Metrics that the page draws.
_NAMES = (RESPONSE_LENGTH, MEAN_REWARD, ENTROPY, KL_LOSS, GRADIENT_NORM, THROUGHPUT)
METRICS = re.compile("|".join((f"({VALIDATION_PREFIX}|{VOTE_PREFIX}).+", *map(re.escape, _NAMES))))


class RunFiles:
    """Reads the folder of a run, synthesis or comparison, and rereads files that have changed.

    Raises:
        FileNotFoundError: the folder has nothing to show.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self._cache = FileCache()
        self.votes = VotedGroups(self.folder, self._cache)
        self.evaluation = EvaluationPairs(self.folder, self._cache)
        files = self._history(), self.folder / COMPARISON
        has_results = any(file.is_file() for file in files) or (self.folder / "evaluation").is_dir()
        if not any((has_results, self.votes.files(), self._events(), self._sheets())):
            raise FileNotFoundError(
                f"{folder} is not the folder of a run: it has no votes/, tensorboard/, evaluation/, {CANDIDATES} or "
                f"{COMPARISON}"
            )

    def summary(self) -> dict[str, Any]:
        """Return what the run has to show, with unreadable files listed in `problems`."""
        steps = self.votes.files()
        problems: list[str] = []

        def part(read: Callable[[], Any], default: Any) -> Any:
            try:
                return read()
            except ValueError as error:
                problems.append(str(error))
                return default

        return {
            "folder": str(self.folder),
            "steps": len(steps),
            "last_step": max(steps, default=None),
            "validations": part(self._validations, []),
            "collapse": part(self._collapse, None),
            "curves": bool(self._events()),
            "sides": part(self.evaluation.sides, []),
            "sheets": [*self._sheets()],
            "problems": problems,
        }

    def curves(self) -> Series:
        """Return the metrics by step."""
        return self._cache.get("curves", self._events(), lambda: read_series(self.folder / "tensorboard", METRICS))

    def sheet(self, folder: str) -> list[dict[str, Any]]:
        """Return the questions that a model wrote, grouped by the rows they were written for; KeyError if unknown."""
        file = self._sheets()[folder]
        return self._cache.get(f"sheet {folder}", [file], lambda: _parents(file))

    def written(self, folder: str, number: int) -> dict[str, Any]:
        """Return an entry of `sheet` with its number of images; KeyError or IndexError if there is none."""
        entry = self.sheet(folder)[number]
        return {**entry, "images": self._pictures(folder).count(entry["id"])}

    def picture(self, source: str, id_: str, number: int, longest_side: int | None) -> tuple[str, bytes]:
        """Return an image of a row, see `RowPictures`; `source` is "votes", "evaluation.PAIR" or a sheet's folder."""
        return self._pictures(source).picture(id_, number, longest_side)

    def _pictures(self, source: str) -> RowPictures:
        files = self._cache.get(f"files of {source}", [], lambda: self._data_files(source))
        return self._cache.get(f"pictures of {source}", files, lambda: RowPictures(files))

    def _data_files(self, source: str) -> list[Path]:
        if source == "votes":
            return self.votes.train_files()
        name, _, pair = source.partition(".")
        if name == "evaluation" and pair.isdecimal():
            return self.evaluation.data_files(int(pair))
        file = self._sheets()[source].parent / "config.yaml"
        with readable(file):
            return [Path(file) for file in file_list(OmegaConf.select(OmegaConf.load(file), "data"))]

    def _events(self) -> list[Path]:
        return sorted((self.folder / "tensorboard").rglob("events.out.tfevents.*"))

    def _validations(self) -> list[int]:
        file = self._history()
        return sorted(self._cache.get("history", [file], lambda: History(file)).validations)

    def _collapse(self) -> str | None:
        with readable(self.folder / STOP):
            stop = read_stop(self.folder)
            return None if stop is None else str(stop["message"])

    def _history(self) -> Path:
        return self.folder / "history.jsonl"

    def _sheets(self) -> dict[str, Path]:
        """Return the candidates of a synthesis, or of the rounds of `mmupt self-improve`, by their folders."""
        files = sorted(file for pattern in ("", "*/", "*/*/") for file in self.folder.glob(f"{pattern}{CANDIDATES}"))
        return {str(file.parent.relative_to(self.folder)): file for file in files}


def _parents(file: Path) -> list[dict[str, Any]]:
    parents: dict[str, dict[str, Any]] = {}
    for judged in read_candidates(file):
        candidate = judged.candidate
        question = candidate.parent_question
        parent = parents.setdefault(
            candidate.parent,
            {
                "id": candidate.parent,
                "question": plain_question(question or ""),
                "question_html": shown_question(question) if question else None,
                "written": [],
            },
        )
        parent["written"].append(
            {
                "text": plain_question(candidate.question or candidate.response),
                "html": shown(candidate.question or candidate.response),
                "strategy": candidate.strategy,
                "vote_share": judged.vote_share,
                "dropped_by": judged.dropped_by,
                "reason": judged.reason,
            }
        )
    return [*parents.values()]
