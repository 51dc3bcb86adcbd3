"""Reads the folder of a run for the page, as JSON values in which keys that end in `html` hold HTML.

All text of rows and responses is escaped in that HTML (`mmupt.reports.formulas`) and plain everywhere else.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from mmupt.benchmarks import Question
from mmupt.evaluation.verdicts import JudgedFile, Verdict, judge_file
from mmupt.reports.html_page import shown, shown_answer, shown_question
from mmupt.synthesis.synthesized_dataset import CANDIDATES, read_candidates
from mmupt.training.collapse_record import STOP, read_stop
from mmupt.training.metric_series import Series, read_series
from mmupt.training.run_report import comparison_of, read_config
from mmupt.viewer.row_pictures import RowPictures
from verl_ext.answers import equivalent
from verl_ext.collapse import History
from verl_ext.control_text import PLACEHOLDER
from verl_ext.files import file_list
from verl_ext.votes.vote_files import files_of_steps, read_train_files, read_votes

Value = TypeVar("Value")

# Of `mmupt compare`, beside which compare.html is a page without a server.
COMPARISON = "compare.json"

# Metrics that are drawn, the first ones first.
METRICS = re.compile(
    r"val-core/.+|vote/.+|response_length/mean|critic/rewards/mean|actor/(entropy|kl_loss|grad_norm)|perf/throughput"
)
# The files of an evaluation, and the sides of a comparison.
SIDES = ("before", "after")
# Groups per reply, so that the first ones are on the screen before the last ones are read.
GROUPS_PER_CHUNK = 1_000
# The columns read for a list of groups.
LISTED = (
    *("step", "id", "question", "majority_ratio", "tied", "no_answer", "pseudo_label", "ground_truth"),
    *("label_correct", "responses.list.element.reward"),
)
# The fields of a group in a list, in their order.
GROUP_FIELDS = (
    *("step", "number", "id", "question", "majority_ratio", "tied", "no_answer", "pseudo_label", "ground_truth"),
    *("label_correct", "responses", "equal_rewards"),
)


@dataclass(frozen=True)
class Pair:
    """Two files of responses to the same questions, with the settings for answers that replace those on record."""

    before: Path
    after: Path
    extraction: str | None = None
    rule: str | None = None


class RunFiles:
    """Reads the folder of a run, synthesis or comparison, again whenever a file has changed.

    Raises:
        FileNotFoundError: the folder has nothing that can be shown.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self._kept: dict[str, tuple[Any, Any]] = {}
        self._lock = Lock()
        files = self._history(), self.folder / COMPARISON
        begun = any(file.is_file() for file in files) or (self.folder / "evaluation").is_dir()
        if not any((begun, self._votes(), self._events(), self._sheet_files())):
            raise FileNotFoundError(
                f"{folder} is not the folder of a run: it holds no votes/, tensorboard/, evaluation/, {CANDIDATES} or "
                f"{COMPARISON}"
            )

    def summary(self) -> dict[str, Any]:
        """What the run has to show, and in `problems` which of its files cannot be read."""
        votes = self._votes()
        problems: list[str] = []

        def part(read: Callable[[], Any], otherwise: Any) -> Any:
            try:
                return read()
            except ValueError as error:
                problems.append(str(error))
                return otherwise

        return {
            "folder": str(self.folder),
            "steps": len(votes),
            "last_step": max(votes, default=None),
            "validations": part(self._validations, []),
            "collapse": part(self._collapse, None),
            "curves": bool(self._events()),
            "sides": part(self._sides, []),
            "sheets": [str(file.parent.relative_to(self.folder)) for file in self._sheet_files()],
            "problems": problems,
        }

    def curves(self) -> Series:
        """Metrics by step."""
        files = self._events()
        return self._changed("curves", files, lambda: read_series(self.folder / "tensorboard", METRICS))

    def groups(self, before: int | None = None, after: int | None = None) -> dict[str, Any]:
        """Groups on file between these steps, the latest first: whole steps, until there are GROUPS_PER_CHUNK groups.

        Returns:
            `fields`, the names of what `groups` has in lists, and `before` for the next request, None at the end.
        """
        steps = [
            step
            for step in reversed(self._votes())
            if (before is None or step < before) and (after is None or step > after)
        ]
        found: list[list[Any]] = []
        for position, step in enumerate(steps):
            found += self._listed(step)
            if len(found) >= GROUPS_PER_CHUNK and position + 1 < len(steps):
                return {"fields": GROUP_FIELDS, "groups": found, "before": step}
        return {"fields": GROUP_FIELDS, "groups": found, "before": None}

    def group_previews(self, keys: Iterable[str]) -> list[dict[str, Any]]:
        """Question and pseudo-label of groups, given by step and number as in "12.0", with formulas drawn.

        KeyError or IndexError if there is no such group.
        """
        found = []
        for key in keys:
            step, _, number = key.partition(".")
            group = dict(zip(GROUP_FIELDS, self._listed(int(step))[int(number)], strict=True))
            answers = [_answer(group["pseudo_label"])]
            found.append({"question_html": shown_question(group["question"]), "answers_html": answers})
        return found

    def group(self, step: int, number: int) -> dict[str, Any]:
        """A group with its responses; KeyError or IndexError if there is none."""
        row = read_votes(self._votes()[step])[number]
        return {
            **{name: row[name] for name in ("step", "first_policy", "last_policy", "id", "images", "majority_ratio")},
            **{name: row[name] for name in ("tied", "no_answer", "label_correct")},
            "question_html": _question(row["question"], row["choices"]),
            "pseudo_label_html": _answer(row["pseudo_label"]),
            "ground_truth_html": _answer(row["ground_truth"]),
            "responses": [
                {
                    **{name: one[name] for name in ("class", "reward", "trained", "correct")},
                    "answer_html": _answer(one["answer"]),
                    "html": shown(one["text"]),
                }
                for one in row["responses"]
            ],
        }

    def history(self, id_: str) -> list[dict[str, Any]]:
        """The groups of one question in the order of steps; `flipped` says whether the pseudo-label has changed.

        Labels are compared as the run compares answers, see `mmupt.training.vote_diagnostics`.
        """
        found = [
            dict(zip(GROUP_FIELDS, fields, strict=True))
            for step in self._votes()
            for fields in self._listed(step)
            if fields[GROUP_FIELDS.index("id")] == id_
        ]
        config, choices = read_config(self.folder), None
        with _readable(self.folder / "config.yaml"):
            comparison = comparison_of(config)
        if found:
            choices = read_votes(self._votes()[found[0]["step"]], ["choices"])[found[0]["number"]]["choices"]

        def differ(one: str | None, other: str | None) -> bool:
            return one is not other if None in (one, other) else not equivalent(one, other, comparison, choices)

        return [
            {
                **{name: one[name] for name in ("step", "number", "majority_ratio", "tied", "label_correct")},
                "pseudo_label_html": _answer(one["pseudo_label"]),
                "flipped": differ(before["pseudo_label"], one["pseudo_label"]),
            }
            for before, one in zip([*found[:1], *found], found, strict=False)
        ]

    def evaluation(self) -> list[dict[str, Any]]:
        """The questions of the evaluation before and after training, or of two models, with both greedy answers.

        `pair` and `id` identify a question: a comparison may have several files of responses on either side.
        """
        return [entry for number in range(len(self._pairs())) for entry in self._pair_evaluation(number)]

    def _pair_evaluation(self, number: int) -> list[dict[str, Any]]:
        judged = self._judged(number)

        def entries() -> list[dict[str, Any]]:
            both = {side: _by_question(one.verdicts) for side, one in zip(SIDES, judged, strict=True)}
            return [
                {
                    "pair": number,
                    "id": id_,
                    "benchmark": question.data_source,
                    "question": _plain(question.text),
                    "ground_truth": question.truth,
                    **{side: _outcome(verdicts.get(id_, [])) for side, verdicts in both.items()},
                }
                for id_, question in _questions(judged).items()
            ]

        evaluated = [file for pair in self._pairs() for file in (pair.before, pair.after)]
        return self._changed(f"questions {number}", evaluated, entries)

    def evaluation_previews(self, keys: Iterable[str]) -> list[dict[str, Any]]:
        """Question and greedy answers, given by pair and id as in "0.q7", with formulas drawn; KeyError if unknown."""
        entries = {f"{entry['pair']}.{entry['id']}": entry for entry in self.evaluation()}
        return [
            {
                "question_html": shown_question(entries[key]["question"]),
                "answers_html": [_answer(entries[key][side]["answer"]) for side in SIDES],
            }
            for key in keys
        ]

    def evaluated(self, pair: int, id_: str) -> dict[str, Any]:
        """A question of the evaluation with all responses of both sides; KeyError or IndexError if there is none."""
        judged = self._judged(pair)
        question = _questions(judged)[id_]
        return {
            "id": id_,
            "images": question.text.count(PLACEHOLDER),
            "question_html": _question(question.text, question.choices),
            "ground_truth_html": _answer(question.truth),
            **{
                side: [_response(verdict) for verdict in _by_question(one.verdicts).get(id_, [])]
                for side, one in zip(SIDES, judged, strict=True)
            },
        }

    def sheet(self, folder: str) -> list[dict[str, Any]]:
        """The questions that a model wrote, by the rows that they were written for; KeyError if there are none."""
        file = self._sheets()[folder]
        return self._changed(f"sheet {folder}", [file], lambda: _parents(file))

    def written(self, folder: str, number: int) -> dict[str, Any]:
        """An entry of `sheet` with its number of images; KeyError or IndexError if there is none."""
        entry = self.sheet(folder)[number]
        return {**entry, "images": self._pictures(folder).count(entry["id"])}

    def picture(self, source: str, id_: str, number: int, longest_side: int | None) -> tuple[str, bytes]:
        """An image of a row, see `RowPictures`; `source` is "votes", "evaluation.PAIR" or the folder of a sheet."""
        return self._pictures(source).picture(id_, number, longest_side)

    def _pictures(self, source: str) -> RowPictures:
        files = self._changed(f"files of {source}", [], lambda: self._data_files(source))
        return self._changed(f"pictures of {source}", files, lambda: RowPictures(files))

    def _listed(self, step: int) -> list[list[Any]]:
        file = self._votes()[step]
        return self._changed(
            f"step {step}", [file], lambda: [_group_fields(*one) for one in enumerate(read_votes(file, LISTED))]
        )

    def _judged(self, number: int) -> tuple[JudgedFile, JudgedFile]:
        pair = self._pairs()[number]
        settings: Any = pair.extraction, pair.rule
        files = [pair.before, pair.after]
        return self._changed(
            f"evaluation {number}", files, lambda: (judge_file(files[0], *settings), judge_file(files[1], *settings))
        )

    def _sides(self) -> list[str]:
        """What the two sides of the evaluation are called; none where there is no evaluation."""
        if self._trained() is not None:
            return ["Before training", "After training"]
        compared = self._compared()["comparisons"]
        return [
            f"{side.upper()}: {', '.join(dict.fromkeys(str(one[side]['model']) for one in compared))}"
            for side in ("a", "b")
            if compared
        ]

    def _data_files(self, source: str) -> list[Path]:
        if source == "votes":
            votes = self._votes()
            return read_train_files(votes[min(votes, default=0)])
        name, _, pair = source.partition(".")
        if name == "evaluation" and pair.isdecimal():
            return [Path(file) for file in self._judged(int(pair))[0].parameters["data"]]
        file = self._sheets()[source].parent / "config.yaml"
        with _readable(file):
            return [Path(file) for file in file_list(OmegaConf.select(OmegaConf.load(file), "data"))]

    def _votes(self) -> dict[int, Path]:
        return files_of_steps(self.folder / "votes")

    def _events(self) -> list[Path]:
        return sorted((self.folder / "tensorboard").rglob("events.out.tfevents.*"))

    def _pairs(self) -> list[Pair]:
        if (trained := self._trained()) is not None:
            return [trained]
        content = self._compared()
        pairs = (
            Pair(Path(one["a"]["file"]), Path(one["b"]["file"]), content.get("extraction"), content.get("rule"))
            for one in content["comparisons"]
        )
        # A file may answer several benchmarks.
        return list(dict.fromkeys(pairs))

    def _trained(self) -> Pair | None:
        before, after = files = [self.folder / "evaluation" / f"{name}.jsonl" for name in SIDES]
        whole = all(file.with_suffix(".parameters.json").is_file() and file.is_file() for file in files)
        return Pair(before, after) if whole else None

    def _compared(self) -> Any:
        file = self.folder / COMPARISON
        nothing: Any = {"comparisons": []}
        return self._changed("comparison", [file], lambda: _read_comparison(file) if file.is_file() else nothing)

    def _validations(self) -> list[int]:
        file = self._history()
        return sorted(self._changed("history", [file], lambda: History(file)).validations)

    def _collapse(self) -> str | None:
        with _readable(self.folder / STOP):
            stop = read_stop(self.folder)
            return None if stop is None else str(stop["message"])

    def _history(self) -> Path:
        return self.folder / "history.jsonl"

    def _sheets(self) -> dict[str, Path]:
        return {str(file.parent.relative_to(self.folder)): file for file in self._sheet_files()}

    def _sheet_files(self) -> list[Path]:
        # Of a synthesis itself, or of the rounds of `mmupt self-improve`.
        return sorted(file for pattern in ("", "*/", "*/*/") for file in self.folder.glob(f"{pattern}{CANDIDATES}"))

    def _changed(self, name: str, files: Iterable[Path], read: Callable[[], Value]) -> Value:
        """The result of `read`, cached until one of these files changes."""
        state = [(file, file.stat().st_mtime_ns, file.stat().st_size) for file in files if file.is_file()]
        with self._lock:
            kept = self._kept.get(name)
        if kept is None or kept[0] != state:
            kept = state, read()
            with self._lock:
                self._kept[name] = kept
        value: Value = kept[1]
        return value


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    """ValueError that names the file, for what a damaged or foreign one raises."""
    try:
        yield
    except (LookupError, TypeError, AttributeError, ValueError, OSError, YAMLError, OmegaConfBaseException) as error:
        problem = f"{type(error).__name__}: {error}"
        raise ValueError(f"{file} is damaged, or was not written by mmupt ({problem}): restore or remove it") from error


def _read_comparison(file: Path) -> Any:
    with _readable(file):
        content = json.loads(file.read_text())
        sides = [one[side] for one in content["comparisons"] for side in ("a", "b")]
        if not all(isinstance(side["file"], str) and "model" in side for side in sides):
            raise ValueError("a side of a comparison needs a model and a file")
        return content


def _group_fields(number: int, row: dict[str, Any]) -> list[Any]:
    responses = row["responses"]
    computed = {
        "number": number,
        "question": _plain(row["question"]),
        "responses": len(responses),
        "equal_rewards": len({one["reward"] for one in responses}) < 2,
    }
    return [{**row, **computed}[name] for name in GROUP_FIELDS]


def _plain(text: str) -> str:
    """A question as shown and searched in a list."""
    return " ".join(text.replace(PLACEHOLDER, " ").split())


def _question(text: str, choices: Iterable[str] | None) -> str:
    options = "".join(f"<li>{shown(choice)}</li>" for choice in choices or ())
    return f"{shown_question(text)}{f'<ul>{options}</ul>' if options else ''}"


def _answer(answer: str | None) -> str | None:
    return None if answer is None else shown_answer(answer)


def _by_question(verdicts: Iterable[Verdict]) -> dict[str, list[Verdict]]:
    found: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        found.setdefault(verdict.response.id, []).append(verdict)
    return found


def _questions(judged: Iterable[JudgedFile]) -> dict[str, Question]:
    """The questions that either file answers, in the order of the files."""
    return {id_: question for one in judged for id_, question in one.questions.items()}


def _is_right(verdict: Verdict) -> bool:
    """By the leading rule."""
    return next(iter(verdict.right.values()))


def _outcome(verdicts: Iterable[Verdict]) -> dict[str, Any]:
    """The greedy answer to a question, and how many samples are right."""
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
        "answer_html": _answer(verdict.answer),
        "html": shown(response.not_asked or response.response),
    }


def _parents(file: Path) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for one in read_candidates(file):
        candidate = one.candidate
        question = candidate.parent_question
        parent = found.setdefault(
            candidate.parent,
            {
                "id": candidate.parent,
                "question": _plain(question or ""),
                "question_html": shown_question(question) if question else None,
                "written": [],
            },
        )
        parent["written"].append(
            {
                "text": _plain(candidate.question or candidate.response),
                "html": shown(candidate.question or candidate.response),
                "strategy": candidate.strategy,
                "vote_share": one.vote_share,
                "dropped_by": one.dropped_by,
                "reason": one.reason,
            }
        )
    return [*found.values()]
