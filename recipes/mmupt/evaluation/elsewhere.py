"""Responses in the files of other programs, as responses to the questions of a data file. Writes nothing.

What the formats are, and what of lmms-eval's and VLMEvalKit's was seen in their source, is in docs/evaluation.md. Their
scores are never read. Every line is untrusted: an id in it is looked up, and never a path.
"""

import csv
import json
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from xml.etree.ElementTree import ParseError
from zipfile import BadZipFile

import pyarrow.parquet as pq

from recipes.mmupt.benchmarks import Question, read_questions
from recipes.mmupt.evaluation.responses import BadLine, Response
from verl_ext.answers import correct

Format = Literal["jsonl", "lmms-eval", "vlmevalkit"]
Columns = tuple[str, ...]
# The columns that name a question in each benchmark. One alone is the end of our id, several are in the metadata.
# "question_id" is what lmms-eval calls MathVista's pid in its results.
ID_COLUMNS: Mapping[str, tuple[Columns, ...]] = {
    "mathvista": (("pid",), ("question_id",)),
    "mathvision": (("id",),),
    "mathverse": (("sample_index",), ("problem_index", "problem_version")),
    "wemath": (("ID", "key"),),
}
# How VLMEvalKit begins the prediction of a question to which it got no response.
FAILED = "Failed to obtain answer"
# The most signs in a cell of a spreadsheet: XlsxWriter, with which VLMEvalKit writes, cuts off what is more.
CELL = 32_767
AS_TSV = "let VLMEvalKit write another table with PRED_FORMAT=tsv"
IMAGE_TAG = re.compile(r"<image ?\d*>")


@dataclass(frozen=True)
class Asked:
    """The questions of a data file by id, and the id by what else may name a question.

    `by_row` goes by the number of the row in the split of the hub, from 0, `by_own_id` by columns of the benchmark and
    what these hold.
    """

    questions: dict[str, Question]
    by_row: dict[int, str]
    by_own_id: dict[Columns, dict[tuple[str, ...], str]]

    def named_by(self, records: Iterable[Mapping[Any, Any]]) -> str | None:
        """The id of the question that the benchmark's own id in one of these records names, None where none has one.

        Raises:
            ValueError: there is no such question.
        """
        records = list(records)
        for columns, ids in self.by_own_id.items():
            for record in records:
                values = tuple(_text(record.get(column)) for column in columns)
                if all(values):
                    if values not in ids:
                        raise ValueError(f"no one question has {_named(columns, values)}")
                    return ids[values]
        return None

    def check(self, id_: str, answer: Any, prompt: Any) -> None:
        """Check by the truth and the question's words that a record of these speaks of it, as a number may mislead.

        Raises:
            ValueError: it speaks of another question, or does not say.
        """
        question = self.questions[id_]
        answer, prompt = _text(answer), prompt if isinstance(prompt, str) else ""
        if not answer or not prompt:
            raise ValueError("it has no id of the benchmark, nor both a prompt and the answer to tell the question by")
        if answer != question.truth.strip() and not correct(answer, question.truth, choices=question.choices):
            raise ValueError(f"its question has the answer {answer!r:.80}, {id_} the answer {question.truth!r:.80}")
        if _signs(question.text.partition("\nChoices:")[0]) not in _signs(prompt):
            raise ValueError(f"it asks something else than {id_}: {prompt!r:.80}")


@dataclass(frozen=True)
class Entry:
    """A response to the question `id` as a file has it; None where the file says nothing."""

    id: str
    response: Any
    mode: Any = None
    sample: Any = None
    tokens: Any = None


def read_asked(data: Path) -> Asked:
    """Read the questions of a data file with their truth.

    Raises:
        ValueError: the truth of a row is missing.
    """
    questions = read_questions(data)
    by_row: dict[int, str] = {}
    ids: dict[Columns, dict[tuple[str, ...], list[str]]] = defaultdict(lambda: defaultdict(list))
    for row in pq.read_table(data, columns=["id", "provenance"]).to_pylist():
        id_, provenance = row["id"], row["provenance"]
        if provenance is None:
            continue
        by_row[provenance["row"]] = id_
        question = questions[id_]
        own_id = id_.removeprefix(f"{question.data_source}-{provenance['split']}-")
        for columns in ID_COLUMNS.get(question.data_source, ()):
            several = tuple(_text(question.metadata.get(column)) for column in columns)
            ids[columns][(own_id,) if len(columns) == 1 else several].append(id_)
    by_own_id = {
        columns: {values: of_values[0] for values, of_values in of_columns.items() if len(of_values) == 1}
        for columns, of_columns in ids.items()
    }
    return Asked(questions, by_row, by_own_id)


def read_elsewhere(file: Path, format_: Format, asked: Asked) -> tuple[list[Response], list[BadLine]]:
    """Read what can be read of a file of another program.

    Returns:
        The responses in the order of the file, and the lines left out: those that answer none of the questions, have no
        text, or are a second response of the same question, mode and sample. The header of a table is its line 1, and
        every row is one line.

    Raises:
        ValueError: the file as a whole cannot be read; the message has the fix.
    """
    read, rows = FORMATS[format_]
    entries: list[tuple[int, Entry]] = []
    bad: list[BadLine] = []
    for line, content in rows(file):
        try:
            if isinstance(content, ValueError):
                raise content
            record = json.loads(content) if isinstance(content, bytes) else content
            if not isinstance(record, dict):
                raise ValueError("no object")
            entries += [(line, entry) for entry in read(record, asked)]
        except (ValueError, RecursionError) as error:
            bad.append(BadLine(line, str(error)))
    responses = []
    times = Counter(entry.id for _, entry in entries if entry.mode is None)
    numbered: Counter[str] = Counter()
    first: dict[tuple[str, str, int], int] = {}
    for line, entry in entries:
        mode = ("greedy" if times[entry.id] == 1 else "sample") if entry.mode is None else entry.mode
        sample = entry.sample
        if sample is None:
            sample = 0 if mode == "greedy" else numbered[entry.id]
            numbered[entry.id] += mode == "sample"
        try:
            fields = {"id": entry.id, "mode": mode, "sample": sample, "response": entry.response}
            response = Response.from_json({**fields, "tokens": entry.tokens})
            earlier = first.setdefault((response.id, response.mode, response.sample), line)
            if earlier != line:
                raise ValueError(f"line {earlier} has {response.mode} response {response.sample} of {entry.id} already")
        except ValueError as error:
            bad.append(BadLine(line, str(error)))
        else:
            responses.append(response)
    return responses, sorted(bad)


def _of_jsonl(record: Mapping[str, Any], asked: Asked) -> Iterator[Entry]:
    id_ = record.get("id")
    if not isinstance(id_, str) or id_ not in asked.questions:
        raise ValueError(f"no question has the id {id_!r:.80}")
    yield Entry(id_, *(record.get(name) for name in ("response", "mode", "sample", "tokens")))


def _of_lmms_eval(record: Mapping[str, Any], asked: Asked) -> Iterator[Entry]:
    row = record.get("doc_id")
    if type(row) is not int or row not in asked.by_row:
        raise ValueError(f"no question is of the row {row!r:.80}, its doc_id")
    id_ = asked.by_row[row]
    # The row of the data set, where a log keeps it, and the results of the task may each repeat its id.
    held = [value for value in record.values() if isinstance(value, dict)]
    named = asked.named_by(held)
    if named is None:
        doc = record["doc"] if isinstance(record.get("doc"), dict) else {}
        asked.check(id_, record.get("target"), doc.get("question") or record.get("input"))
    elif named != id_:
        raise ValueError(f"its doc_id {row} is {id_}, but its id of the benchmark is that of {named}")
    # What filters leave of responses is the same text where "resps" is missing.
    texts = list(_flat(record.get("resps", record.get("filtered_resps", []))))
    if not texts:
        raise ValueError("no response text")
    mode = "greedy" if len(texts) == 1 else "sample"
    yield from (Entry(id_, text, mode, sample) for sample, text in enumerate(texts))


def _of_vlmevalkit(record: Mapping[str, Any], asked: Asked) -> Iterator[Entry]:
    id_ = asked.named_by([record])
    if id_ is None:
        index = _text(record.get("index"))
        own_ids = next((ids for columns, ids in asked.by_own_id.items() if len(columns) == 1), {})
        if (index,) not in own_ids:
            raise ValueError(f"no question has the id {index!r:.80} in the benchmark, its index")
        id_ = own_ids[(index,)]
        asked.check(id_, record.get("answer"), record.get("question"))
    prediction = record.get("prediction")
    if _text(prediction).startswith(FAILED):
        raise ValueError(f"no response text: {prediction:.80}")
    # An empty cell is an empty response.
    yield Entry(id_, prediction if isinstance(prediction, str) else _text(prediction), "greedy", 0)


def _lines(file: Path) -> Iterator[tuple[int, bytes]]:
    # In bytes, as a line may be cut within a letter, and as only "\n" ends one.
    with file.open("rb") as lines:
        yield from enumerate(lines, start=1)


def _table(file: Path) -> Iterator[tuple[int, Any]]:
    """The rows of a table, each by the names of its columns; a ValueError in place of one that cannot be used."""
    suffix = file.suffix.lower()
    if suffix in (".tsv", ".csv"):
        return _csv(file, "\t" if suffix == ".tsv" else ",")
    if suffix == ".json":
        return _json(file)
    if suffix == ".xlsx":
        return _xlsx(file)
    raise ValueError(f"{file}: a table of VLMEvalKit is a .xlsx, .tsv, .csv or .json (PRED_FORMAT chooses)")


def _csv(file: Path, delimiter: str) -> Iterator[tuple[int, Any]]:
    # Responses are longer than the module expects of a field.
    csv.field_size_limit(sys.maxsize)
    with file.open(encoding="utf-8-sig", errors="replace", newline="") as opened:
        # Strictly, as a file that was cut within quotes otherwise ends in a whole row.
        rows = enumerate(csv.DictReader(opened, delimiter=delimiter, strict=True), start=2)
        line = 1
        try:
            for line, row in rows:
                yield line, row
        except csv.Error as error:
            yield line + 1, ValueError(f"{error}; nothing after it is read")


def _json(file: Path) -> Iterator[tuple[int, Any]]:
    try:
        records = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is no JSON, or was cut: {error}") from error
    if not isinstance(records, list):
        raise ValueError(f"{file} is no list of rows, as VLMEvalKit writes predictions")
    yield from enumerate(records, start=1)


def _xlsx(file: Path) -> Iterator[tuple[int, Any]]:
    import pandas

    try:
        table = pandas.read_excel(file, dtype=str, na_filter=False)
    except ImportError as error:
        raise ValueError(
            f"{file}: openpyxl, which reads it, is missing: `pip install openpyxl`, or {AS_TSV}"
        ) from error
    except (BadZipFile, KeyError, ParseError, ValueError) as error:
        raise ValueError(f"{file} is no xlsx, or was cut: {error}") from error
    for line, row in enumerate(table.to_dict("records"), start=2):
        cut = len(row.get("prediction", "")) >= CELL
        yield line, ValueError(f"its prediction ends with the cell, at {CELL} signs; {AS_TSV}") if cut else row


FORMATS: Mapping[
    Format,
    tuple[
        Callable[[Mapping[str, Any], Asked], Iterator[Entry]],
        Callable[[Path], Iterator[tuple[int, Any]]],
    ],
] = {
    "jsonl": (_of_jsonl, _lines),
    "lmms-eval": (_of_lmms_eval, _lines),
    "vlmevalkit": (_of_vlmevalkit, _table),
}


def _flat(value: Any) -> Iterator[str]:
    """The texts in nested lists, in order."""
    if isinstance(value, list):
        for one in value:
            yield from _flat(one)
    elif isinstance(value, str):
        yield value
    else:
        raise ValueError(f"a response is {value!r:.80}, no text")


def _text(value: Any) -> str:
    """A cell or a JSON value as text without spaces around; whole numbers without a point, nothing for nothing."""
    if value is None or value != value:
        return ""
    return str(int(value) if isinstance(value, float) and value.is_integer() else value).strip()


def _signs(text: str) -> str:
    """The letters and digits of a text, which layouts and tags for images leave alone."""
    return "".join(filter(str.isalnum, IMAGE_TAG.sub("", text).lower()))


def _named(columns: Columns, values: tuple[str, ...]) -> str:
    return ", ".join(f"{column} {value!r:.80}" for column, value in zip(columns, values, strict=True))
