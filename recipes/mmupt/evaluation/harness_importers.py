"""Reads responses to the questions of a data file from the files of other evaluation harnesses.

docs/evaluation.md describes the formats. The harness's own scores are ignored. Records are untrusted: ids are only
looked up, and nothing is evaluated, unpickled or used as a path.
"""

import csv
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from mmupt.evaluation.question_matching import Evidence, Problem, QuestionIndex, Unusable, cell_text
from mmupt.evaluation.response_files import Response

Format = Literal["jsonl", "lmms-eval", "vlmevalkit"]
# Text that a harness logs in place of a missing response.
NO_RESPONSE = re.compile(r"Fail(?:ed)? to obtain answer|\[LMMS_EVAL_[A-Z_]+")
# VLMEvalKit writes with XlsxWriter, which truncates cells at this many characters.
CELL = 32_767
# Columns of tables that VLMEvalKit writes after judging. They have passed through pandas, which reads "N/A" and "None"
# as empty cells and keeps `_x000C_`.
JUDGED_COLUMNS = {"log", "log_extract", "log_score"}
AS_TSV = "let VLMEvalKit write another table with PRED_FORMAT=tsv"
OPTION_COLUMNS = (*"ABCDEFGH", "choices", "options")
# MathVista and MATH-Vision name a question's image after its id.
_IMAGE_OF = re.compile(r"(?:.*/)?images/([^/]+)\.(?:jpg|png)")


class UnusableRow(NamedTuple):
    """A row that cannot be imported, with its line in the file, counted from 1, and the reason."""

    line: int
    problem: Problem
    why: str


@dataclass(frozen=True)
class Entry:
    """One response in a file; fields that the file lacks are None."""

    response: Any
    mode: Any = None
    sample: Any = None
    tokens: Any = None


@dataclass(frozen=True)
class Record:
    """The responses in one record, and the id of their question or the evidence for it."""

    question: str | Evidence
    entries: list[Entry]


def read_harness_file(file: Path, format_: Format, index: QuestionIndex) -> tuple[list[Response], list[UnusableRow]]:
    """Read the responses in a file of another harness.

    Returns:
        The responses in the order of the file, and the unusable rows. The header of a table is line 1, and every row
        counts as one line.

    Raises:
        ValueError: the whole file cannot be read; the message has the fix.
    """
    read, rows = FORMATS[format_]
    records: list[tuple[int, Record]] = []
    unusable: list[UnusableRow] = []
    for line, content in rows(file):
        try:
            if isinstance(content, ValueError):
                raise content
            value = json.loads(content) if isinstance(content, bytes) else content
            if not isinstance(value, dict):
                raise ValueError("a row is a JSON object, with a value for each column")
            records.append((line, read(value, index)))
        except (ValueError, RecursionError) as error:
            unusable.append(_row(line, error))
    evidence = [record.question for _, record in records if isinstance(record.question, Evidence)]
    matched = iter(index.match(evidence))
    entries: list[tuple[int, str, Entry]] = []
    for line, record in records:
        id_ = record.question if isinstance(record.question, str) else next(matched)
        if isinstance(id_, Unusable):
            unusable.append(_row(line, id_))
        else:
            entries += [(line, id_, entry) for entry in record.entries]
    responses, more = _numbered(entries)
    return responses, sorted([*unusable, *more])


def _numbered(entries: Sequence[tuple[int, str, Entry]]) -> tuple[list[Response], list[UnusableRow]]:
    """Fill in the mode and sample number of responses that the file gives none."""
    times = Counter(id_ for _, id_, entry in entries if entry.mode is None)
    counted: Counter[str] = Counter()
    first: dict[tuple[str, str, int], int] = {}
    responses, unusable = [], []
    for line, id_, entry in entries:
        mode = ("greedy" if times[id_] == 1 else "sample") if entry.mode is None else entry.mode
        sample = entry.sample
        if sample is None:
            sample = 0 if mode == "greedy" else counted[id_]
            counted[id_] += mode == "sample"
        try:
            fields = {"id": id_, "mode": mode, "sample": sample, "response": entry.response, "tokens": entry.tokens}
            response = Response.from_json(fields)
            if NO_RESPONSE.match(response.response):
                raise Unusable("have no response", f"{id_} got no response: {response.response:.200}")
            earlier = first.setdefault((id_, response.mode, response.sample), line)
            if earlier != line:
                raise Unusable(
                    "repeat another row's response",
                    f"line {earlier} has {response.mode} response {response.sample} of {id_} already",
                )
        except ValueError as error:
            unusable.append(_row(line, error))
        else:
            responses.append(response)
    return responses, unusable


def _row(line: int, error: Exception) -> UnusableRow:
    return UnusableRow(line, error.problem if isinstance(error, Unusable) else "cannot be read", str(error))


def _of_jsonl(record: Mapping[str, Any], index: QuestionIndex) -> Record:
    if missing := {"id", "response"} - record.keys():
        keys = ", ".join(map(str, record))
        raise ValueError(f"it has no {' and no '.join(sorted(missing))}, but {keys:.200}")
    id_ = record["id"]
    if not isinstance(id_, str) or id_ not in index.questions:
        example = next(iter(index.questions), "")
        raise Unusable("match no question", f"no question has the id {id_!r:.80}; ids of the data are like {example!r}")
    if record["response"] is None:
        raise Unusable("have no response", f"the response to {id_} is null")
    return Record(id_, [Entry(*(record.get(name) for name in ("response", "mode", "sample", "tokens")))])


def _of_lmms_eval(record: Mapping[str, Any], index: QuestionIndex) -> Record:
    number = record.get("doc_id")
    if type(number) is not int:
        raise Unusable("match no question", f"doc_id is {number!r:.80}, a row number is expected")
    # A log may contain the row of the data set, and the task's results may repeat parts of it.
    held = [value for value in record.values() if isinstance(value, dict)]
    doc = record["doc"] if isinstance(record.get("doc"), dict) else {}
    media = record.get("input_media")
    if isinstance(media, list) and media and (image := _IMAGE_OF.fullmatch(str(media[0]))):
        held.append({"pid": image[1], "id": image[1]})
    prompt = record.get("input") or doc.get("question")
    evidence = Evidence(
        held,
        "doc_id",
        str(number),
        index.by_row.get(number),
        cell_text(record.get("target")),
        prompt if isinstance(prompt, str) else "",
        counts_rows=True,
    )
    # With "resps", "filtered_resps" lacks the reasoning; without it, the filters changed nothing.
    texts = list(_flat(record.get("resps", record.get("filtered_resps", []))))
    if not texts:
        raise Unusable("have no response", "neither resps nor filtered_resps has a text")
    mode = "greedy" if len(texts) == 1 else "sample"
    return Record(evidence, [Entry(text, mode, sample) for sample, text in enumerate(texts)])


def _of_vlmevalkit(record: Mapping[str, Any], index: QuestionIndex) -> Record:
    if "prediction" not in record:
        raise ValueError(f"no column prediction; it has {', '.join(map(str, record))}"[:200])
    if judged := JUDGED_COLUMNS & record.keys():
        raise ValueError(
            f"its column {min(judged)} is from a table that VLMEvalKit has judged, in which responses such as N/A are "
            "lost: import its table of predictions, MODEL_DATASET.xlsx"
        )
    prediction = record["prediction"]
    if prediction is None or isinstance(prediction, (dict, list)):
        raise Unusable("have no response", f"its prediction is {prediction!r:.80}")
    number = cell_text(record.get("index"))
    prompt = "\n".join(cell_text(record.get(column)) for column in ("question", *OPTION_COLUMNS)).strip()
    evidence = Evidence([record], "index", number, index.by_index(number), cell_text(record.get("answer")), prompt)
    # An empty cell is an empty response.
    response = prediction if isinstance(prediction, str) else cell_text(prediction)
    if thinking := cell_text(record.get("thinking")):
        # SPLIT_THINK trims both texts and keeps the tags unless they are a single pair.
        closed = thinking if thinking.endswith("</think>") else f"<think>\n{thinking}\n</think>"
        response = f"{closed}\n\n{response}"
    return Record(evidence, [Entry(response, "greedy", 0)])


def _lines(file: Path) -> Iterator[tuple[int, bytes]]:
    # As bytes: a line may be cut within a character, and only "\n" ends one.
    with file.open("rb") as lines:
        yield from enumerate(lines, start=1)


def _table(file: Path) -> Iterator[tuple[int, Any]]:
    """Yield the rows of a table as mappings by column name, or a ValueError for a row that cannot be used."""
    suffix = file.suffix.lower()
    if suffix in (".tsv", ".csv"):
        return _csv(file, "\t" if suffix == ".tsv" else ",")
    if suffix == ".json":
        return _json(file)
    if suffix == ".xlsx":
        return _xlsx(file)
    if suffix == ".pkl":
        raise ValueError(
            f"{file}: a pickle is not read, because it can run any code. VLMEvalKit writes a pickle when it cannot "
            'write the table. Convert your own pickle to JSON: python -c "import json, pandas; '
            "json.dump(pandas.read_pickle('TABLE.pkl').to_dict('records'), open('TABLE.json', 'w'), default=str)\""
        )
    raise ValueError(f"{file}: a table of VLMEvalKit is a .xlsx, .tsv, .csv or .json (PRED_FORMAT chooses)")


def _csv(file: Path, delimiter: str) -> Iterator[tuple[int, Any]]:
    # Responses exceed the default field size limit.
    csv.field_size_limit(sys.maxsize)
    with file.open(encoding="utf-8-sig", newline="") as opened:
        # Strict, because otherwise a file cut within quotes seems to end with a whole row.
        reader = csv.DictReader(opened, delimiter=delimiter, strict=True)
        line = 1
        try:
            for line, row in enumerate(reader, start=2):
                whole = None not in row and None not in row.values()
                yield (
                    line,
                    row if whole else ValueError(f"its columns are not the {len(reader.fieldnames or ())} above"),
                )
        except csv.Error as error:
            yield line + 1, ValueError(f"{error}; nothing after it is read")
        except UnicodeDecodeError as error:
            raise ValueError(f"{file}, after line {line}, is not UTF-8: {error}") from error


def _json(file: Path) -> Iterator[tuple[int, Any]]:
    try:
        records = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is not JSON, or was cut: {error}") from error
    if not isinstance(records, list):
        raise ValueError(f"{file} is not a list of rows, as VLMEvalKit writes predictions")
    yield from enumerate(records, start=1)


def _xlsx(file: Path) -> Iterator[tuple[int, Any]]:
    try:
        # Not openpyxl, which does not decode a form feed, `_x000C_`, and deletes "x005F_".
        from python_calamine import CalamineError
    except ImportError as error:
        raise ValueError(
            f"{file}: python-calamine, which reads it, is missing: `pip install python-calamine`, or {AS_TSV}"
        ) from error
    import pandas

    try:
        table = pandas.read_excel(file, dtype=str, na_filter=False, engine="calamine")
    except (CalamineError, ValueError) as error:
        failed = file.with_suffix(".pkl")
        why = f"; VLMEvalKit failed to write it, and wrote {failed.name} instead" if failed.exists() else ""
        raise ValueError(f"{file} is not an xlsx file, or was cut: {error}{why}") from error
    for line, row in enumerate(table.to_dict("records"), start=2):
        cut = len(row.get("prediction", "")) >= CELL
        problem = Unusable("have no response", f"its prediction ends with the cell, at {CELL} characters; {AS_TSV}")
        yield line, problem if cut else row


ReadRecord = Callable[[Mapping[str, Any], QuestionIndex], Record]
ReadRows = Callable[[Path], Iterable[tuple[int, Any]]]
FORMATS: Mapping[Format, tuple[ReadRecord, ReadRows]] = {
    "jsonl": (_of_jsonl, _lines),
    "lmms-eval": (_of_lmms_eval, _lines),
    "vlmevalkit": (_of_vlmevalkit, _table),
}


def _flat(value: Any) -> Iterator[str]:
    """Yield the texts in nested lists, in order."""
    if isinstance(value, list):
        for item in value:
            yield from _flat(item)
    elif isinstance(value, str):
        yield value
    else:
        raise Unusable("have no response", f"a response is {value!r:.80}, no text")
