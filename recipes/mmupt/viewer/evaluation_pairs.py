"""Evaluated questions: those of a run before and after training, or those that `mmupt compare` compared."""

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmupt.benchmarks import Question
from mmupt.evaluation.verdicts import JudgedFile, Verdict, judge_file
from mmupt.reports.html_page import shown, shown_question
from mmupt.viewer.file_cache import FileCache, readable
from mmupt.viewer.question_text import answer_html, plain_question, question_html
from verl_ext.control_text import PLACEHOLDER

# The comparison that `mmupt compare` writes.
COMPARISON = "compare.json"
# The response files of a run's evaluation, and the keys of the two sides in replies.
SIDES = ("before", "after")


@dataclass(frozen=True)
class Pair:
    """Two files of responses to the same questions, with answer settings that override the recorded ones."""

    before: Path
    after: Path
    extraction: str | None = None
    rule: str | None = None


class EvaluationPairs:
    """Reads the pairs of response files of a run or comparison. KeyError or IndexError if an entry does not exist."""

    def __init__(self, folder: Path, cache: FileCache) -> None:
        self._folder, self._cache = folder, cache

    def sides(self) -> list[str]:
        """Return the titles of the two sides; empty without an evaluation."""
        if self._trained() is not None:
            return ["Before training", "After training"]
        comparisons = self._comparison()["comparisons"]
        return [
            f"{side.upper()}: {', '.join(dict.fromkeys(str(entry[side]['model']) for entry in comparisons))}"
            for side in ("a", "b")
            if comparisons
        ]

    def questions(self) -> list[dict[str, Any]]:
        """Return the questions with the greedy answers of both sides.

        `pair` and `id` identify a question: a comparison may have several response files per side.
        """
        return [entry for number in range(len(self._pairs())) for entry in self._questions_of_pair(number)]

    def previews(self, keys: Iterable[str]) -> list[dict[str, Any]]:
        """Return question and greedy answers as HTML; a key is pair and id, such as "0.q7"."""
        entries = {f"{entry['pair']}.{entry['id']}": entry for entry in self.questions()}
        return [
            {
                "question_html": shown_question(entries[key]["question"]),
                "answers_html": [answer_html(entries[key][side]["answer"]) for side in SIDES],
            }
            for key in keys
        ]

    def question(self, pair: int, id_: str) -> dict[str, Any]:
        """Return a question with all responses of both sides."""
        judged = self._judged(pair)
        question = _merged_questions(judged)[id_]
        return {
            "id": id_,
            "images": question.text.count(PLACEHOLDER),
            "question_html": question_html(question.text, question.choices),
            "ground_truth_html": answer_html(question.truth),
            **{
                side: [_response(verdict) for verdict in _by_question(file.verdicts).get(id_, [])]
                for side, file in zip(SIDES, judged, strict=True)
            },
        }

    def data_files(self, pair: int) -> list[Path]:
        """Return the data files that the questions of a pair come from."""
        return [Path(file) for file in self._judged(pair)[0].parameters["data"]]

    def _questions_of_pair(self, number: int) -> list[dict[str, Any]]:
        judged = self._judged(number)

        def entries() -> list[dict[str, Any]]:
            both = {side: _by_question(file.verdicts) for side, file in zip(SIDES, judged, strict=True)}
            return [
                {
                    "pair": number,
                    "id": id_,
                    "benchmark": question.data_source,
                    "question": plain_question(question.text),
                    "ground_truth": question.truth,
                    **{side: _outcome(verdicts.get(id_, [])) for side, verdicts in both.items()},
                }
                for id_, question in _merged_questions(judged).items()
            ]

        evaluated = [file for pair in self._pairs() for file in (pair.before, pair.after)]
        return self._cache.get(f"questions {number}", evaluated, entries)

    def _judged(self, number: int) -> tuple[JudgedFile, JudgedFile]:
        pair = self._pairs()[number]
        settings: Any = pair.extraction, pair.rule
        return self._cache.get(
            f"evaluation {number}",
            [pair.before, pair.after],
            lambda: (judge_file(pair.before, *settings), judge_file(pair.after, *settings)),
        )

    def _pairs(self) -> list[Pair]:
        if (trained := self._trained()) is not None:
            return [trained]
        content = self._comparison()
        pairs = (
            Pair(Path(entry["a"]["file"]), Path(entry["b"]["file"]), content.get("extraction"), content.get("rule"))
            for entry in content["comparisons"]
        )
        # Entries of several benchmarks may share their files.
        return list(dict.fromkeys(pairs))

    def _trained(self) -> Pair | None:
        before, after = files = [self._folder / "evaluation" / f"{name}.jsonl" for name in SIDES]
        complete = all(file.with_suffix(".parameters.json").is_file() and file.is_file() for file in files)
        return Pair(before, after) if complete else None

    def _comparison(self) -> Any:
        file = self._folder / COMPARISON
        empty: Any = {"comparisons": []}
        return self._cache.get("comparison", [file], lambda: _read_comparison(file) if file.is_file() else empty)


def _read_comparison(file: Path) -> Any:
    with readable(file):
        content = json.loads(file.read_text())
        sides = [entry[side] for entry in content["comparisons"] for side in ("a", "b")]
        if not all(isinstance(side["file"], str) and "model" in side for side in sides):
            raise ValueError("a side of a comparison needs a model and a file")
        return content


def _by_question(verdicts: Iterable[Verdict]) -> dict[str, list[Verdict]]:
    by_question = defaultdict(list)
    for verdict in verdicts:
        by_question[verdict.response.id].append(verdict)
    return by_question


def _merged_questions(judged: Iterable[JudgedFile]) -> dict[str, Question]:
    """Return the questions that either file answers, in the order of the files."""
    return {id_: question for file in judged for id_, question in file.questions.items()}


def _is_right(verdict: Verdict) -> bool:
    """Whether a response is right by the leading rule."""
    return next(iter(verdict.right.values()))


def _outcome(verdicts: Iterable[Verdict]) -> dict[str, Any]:
    """Return the greedy answer to a question, and the number of right samples."""
    greedy = next((verdict for verdict in verdicts if verdict.response.mode == "greedy"), None)
    samples = [_is_right(verdict) for verdict in verdicts if verdict.response.mode == "sample"]
    return {
        "answer": greedy and greedy.answer,
        "right": greedy and _is_right(greedy),
        "samples": len(samples),
        "right_samples": sum(samples),
    }


def _response(verdict: Verdict) -> dict[str, Any]:
    response = verdict.response
    return {
        "mode": response.mode,
        "sample": response.sample,
        "right": _is_right(verdict),
        "answer_html": answer_html(verdict.answer),
        "html": shown(response.not_asked or response.response),
    }
