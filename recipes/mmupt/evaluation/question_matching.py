"""Finds the question that a record of another evaluation harness answers.

The benchmark's own id decides; records without one are matched by the words of the question and its answer. Records are
untrusted: their values are only looked up and compared.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mmupt.benchmarks import Question, read_questions
from verl_ext.answers import correct
from verl_ext.datasets.parquet_reader import whole_rows

Columns = tuple[str, ...]
# The columns that identify a question of each benchmark, the most reliable first. A single column is the end of our id;
# several are in the metadata. lmms-eval calls MathVista's pid "question_id".
ID_COLUMNS: Mapping[str, tuple[Columns, ...]] = {
    "mathvista": (("pid",), ("question_id",)),
    "mathvision": (("id",),),
    "mathverse": (("problem_index", "problem_version"), ("sample_index",)),
    "wemath": (("ID", "key"),),
}
# The line between a question and its options in our data files.
OPTIONS = "\nChoices:"
_IMAGE_TAG = re.compile(r"<image ?\d*>")

Problem = Literal[
    "cannot be read",
    "match no question",
    "match several questions",
    "have no response",
    "repeat another row's response",
]


class Unusable(ValueError):
    """A record that cannot be imported: the kind of problem, and what was expected."""

    def __init__(self, problem: Problem, why: str) -> None:
        super().__init__(why)
        self.problem = problem


@dataclass(frozen=True)
class Evidence:
    """What a record reveals about the question that it answers.

    held: the mappings that may contain the benchmark's own id.
    number, number_name: the running number of the record, and the harness's name for it.
    numbered: the id of the question with that number, None if there is none.
    counts_rows: whether the number counts the rows of the published split, like ours.
    """

    held: Sequence[Mapping[Any, Any]] = ()
    number_name: str = ""
    number: str = ""
    numbered: str | None = None
    answer: str = ""
    prompt: str = ""
    counts_rows: bool = False


class QuestionIndex:
    """Finds the questions of a data file by id, by row, by the benchmark's own id, or by their words and answer."""

    def __init__(self, questions: Mapping[str, Question], rows: Mapping[int, str], splits: Mapping[str, str]) -> None:
        """Index questions.

        Args:
            questions: by id.
            rows: ids by row number in the published split, counted from 0.
            splits: the published split by id.
        """
        self.questions = questions
        self.by_row = rows
        own: dict[Columns, dict[Columns, list[str]]] = defaultdict(lambda: defaultdict(list))
        for id_, question in questions.items():
            own_id = id_.removeprefix(f"{question.data_source}-{splits.get(id_)}-")
            for columns in ID_COLUMNS.get(question.data_source, ()):
                values = [own_id] if len(columns) == 1 else [question.metadata.get(column) for column in columns]
                own[columns][tuple(map(_key, values))].append(id_)
        self._by_own_id = own
        parts = {id_: question.text.partition(OPTIONS) for id_, question in questions.items()}
        self._words = {id_: words for id_, (words, _, _) in parts.items()}
        self._options = {id_: questions[id_].choices or rest.splitlines() for id_, (_, _, rest) in parts.items()}
        self._reduced = {
            reduce: {id_: reduce(words) for id_, words in self._words.items()}
            for reduce in (_without_spaces, _alphanumeric)
        }

    def by_index(self, index: str) -> str | None:
        """The id of the question whose own id is this single value; None unless exactly one question has it."""
        for columns, ids in self._by_own_id.items():
            if len(columns) == 1:
                found = ids.get((_key(index),), [])
                return found[0] if len(found) == 1 else None
        return None

    def match(self, records: Sequence[Evidence]) -> list[str | Unusable]:
        """Find the question of each record of one file.

        The benchmark's own id decides. Records without one are matched by the words of the question in the prompt, by
        the answer, and by the running number if it agrees with these for every such record of the file. Otherwise the
        harness counts in another order than the data, so words and answer must fit exactly one question.
        """
        found = [self._identified(record) for record in records]
        fitting = {index: self._fitting(record) for index, record in enumerate(records) if found[index] is None}
        fits = [records[index].numbered in fit for index, fit in fitting.items() if fit and records[index].numbered]
        same_order = all(fits) and (bool(fits) or any(record.counts_rows for record in records))
        for index, fit in fitting.items():
            found[index] = self._chosen(records[index], fit, same_order)
        numbers: dict[str, set[str]] = defaultdict(set)
        for index in fitting:
            if isinstance(id_ := found[index], str):
                numbers[id_].add(records[index].number)
        for index in fitting:
            if isinstance(id_ := found[index], str) and len(numbers[id_]) > 1:
                rows = f"{records[index].number_name} {', '.join(sorted(numbers[id_]))}"
                found[index] = Unusable(
                    "repeat another row's response", f"{rows} all have the words and answer of {id_}"
                )
        return [one for one in found if one is not None]

    def _identified(self, record: Evidence) -> str | Unusable | None:
        """The id of the question with the record's own id; None if it has none or several questions share it."""
        held = [{str(name).lower(): value for name, value in mapping.items()} for mapping in record.held]
        for columns, ids in self._by_own_id.items():
            for mapping in held:
                values = [cell_text(mapping.get(column.lower())) for column in columns]
                if not all(values):
                    continue
                named = ", ".join(f"{column} {value!r:.80}" for column, value in zip(columns, values, strict=True))
                match ids.get(tuple(map(_key, values)), []):
                    case []:
                        return Unusable("match no question", f"no question has {named}")
                    case [id_] if self._contradicts(id_, record):
                        return Unusable("match no question", f"{named} is {id_}, but {self._difference(id_, record)}")
                    case [id_]:
                        return id_
        return None

    def _fitting(self, record: Evidence) -> list[str]:
        """The ids of the questions with the record's answer, among those with the longest text found in the prompt.

        Spaces and image tags are ignored, and punctuation too if no question matches otherwise.
        """
        if not record.answer or not record.prompt:
            return []
        for reduce, words in self._reduced.items():
            prompt = reduce(record.prompt)
            asked_in = [id_ for id_, of_question in words.items() if of_question in prompt]
            longest = max((len(words[id_]) for id_ in asked_in), default=0)
            if longest:
                break
        fit = [id_ for id_ in asked_in if len(words[id_]) == longest and self._has_answer(id_, record.answer)]
        fit = [id_ for id_ in fit if self._has_columns(id_, record)]
        with_options = [id_ for id_ in fit if all(reduce(option) in prompt for option in self._options[id_])]
        return with_options or fit

    def _chosen(self, record: Evidence, fit: Sequence[str], same_order: bool) -> str | Unusable:
        number = f"{record.number_name} {record.number!r:.80}"
        if not record.answer or not record.prompt:
            return Unusable(
                "match no question", "it has neither the benchmark's id nor both a prompt and an answer to match"
            )
        if same_order and record.number:
            if record.numbered is None:
                return Unusable("match no question", f"no question of the data has {number}")
            if record.numbered not in fit:
                why = self._difference(record.numbered, record)
                return Unusable("match no question", f"{number} is {record.numbered}, but {why}")
            return record.numbered
        if not fit:
            why = f"no question with the answer {record.answer!r:.80} is asked in its prompt"
            if record.numbered:
                why += f"; {number} is {record.numbered}, but {self._difference(record.numbered, record)}"
            return Unusable("match no question", why)
        if len(fit) > 1:
            order = f", and {record.number_name} follows another order than the data" if record.number else ""
            why = f"{len(fit)} questions have its words and its answer{order}: {', '.join(fit[:5])}"
            return Unusable("match several questions", why)
        return fit[0]

    def _has_answer(self, id_: str, answer: str) -> bool:
        question = self.questions[id_]
        same_text = "".join(answer.split()) == "".join(question.truth.split())
        return same_text or correct(answer, question.truth, choices=question.choices)

    def _has_columns(self, id_: str, record: Evidence) -> bool:
        """Whether the question agrees with an incomplete id in the record, such as a version without the problem."""
        metadata = self.questions[id_].metadata
        columns = {column for several in ID_COLUMNS.get(self.questions[id_].data_source, ()) for column in several}
        return all(
            _key(mapping[column]) == _key(metadata[column])
            for mapping in record.held
            for column in columns & metadata.keys() & mapping.keys()
            if cell_text(mapping[column])
        )

    def _contradicts(self, id_: str, record: Evidence) -> bool:
        """Whether the record has both an answer and a prompt, and neither is that of the question."""
        if not record.answer or not record.prompt:
            return False
        return not self._has_answer(id_, record.answer) and _alphanumeric(self._words[id_]) not in _alphanumeric(
            record.prompt
        )

    def _difference(self, id_: str, record: Evidence) -> str:
        if not self._has_answer(id_, record.answer):
            return f"its answer is {record.answer!r:.80} and that of the question {self.questions[id_].truth!r:.80}"
        return f"it asks something else: {record.prompt!r:.200}"


def read_index(data: Path) -> QuestionIndex:
    """Index the questions of a data file; ValueError if a row has no ground truth."""
    rows, splits = {}, {}
    for row in whole_rows(data, ("id", "provenance")):
        if row["provenance"] is not None:
            rows[row["provenance"]["row"]] = row["id"]
            splits[row["id"]] = row["provenance"]["split"]
    return QuestionIndex(read_questions(data), rows, splits)


def cell_text(value: Any) -> str:
    """Convert a cell or JSON value to stripped text: whole numbers without a decimal point, "" for None and NaN."""
    if value is None or value != value:
        return ""
    return str(int(value) if isinstance(value, float) and value.is_integer() else value).strip()


def _key(value: Any) -> str:
    """Normalize a value of an id column: VLMEvalKit's "Text_Lite" equals "Text Lite"."""
    return cell_text(value).replace("_", " ").casefold()


def _without_spaces(text: str) -> str:
    return "".join(_IMAGE_TAG.sub("", text).lower().split())


def _alphanumeric(text: str) -> str:
    return "".join(filter(str.isalnum, _IMAGE_TAG.sub("", text).lower()))
