"""Files of responses: one JSON line per response, and `NAME.parameters.json` with everything that determines them.

A file with its parameters is complete: both are written atomically, the parameters last. Unfinished files are in
`mmupt.evaluation.resumable_file`.
"""

import json
from collections.abc import Container, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from verl_ext.files import write_atomically, write_json, write_json_lines

Mode = Literal["greedy", "sample"]


@dataclass(frozen=True)
class Response:
    """One response to the question `id`.

    mode: how it was decoded.
    sample: the number of the response among those of its question and mode, from 0.
    response: the text without special tokens.
    tokens: number of generated tokens, including the end token; None if not counted.
    not_asked: why the model could not be asked, for example an image that cannot be decoded; the response is then empty
        and counts as wrong under every rule.
    """

    id: str
    mode: Mode
    sample: int
    response: str
    tokens: int | None = None
    not_asked: str | None = None

    @classmethod
    def from_json(cls, content: Any) -> "Response":
        """Validate a parsed JSON line; ValueError says what is wrong with it."""
        if not isinstance(content, dict):
            raise ValueError("not an object")
        names = {field.name for field in fields(cls)}
        if unknown := sorted(content.keys() - names):
            raise ValueError(f"unknown keys {', '.join(unknown)}")
        if missing := sorted(names - {"tokens", "not_asked"} - content.keys()):
            raise ValueError(f"no {', '.join(missing)}")
        for name, types in (
            ("id", str),
            ("response", str),
            ("sample", int),
            ("tokens", int | None),
            ("not_asked", str | None),
        ):
            value = content.get(name)
            if not isinstance(value, types) or isinstance(value, bool):
                raise ValueError(f"{name} is {value!r}")
        if content["mode"] not in get_args(Mode):
            raise ValueError(f"mode is {content['mode']!r}, neither {' nor '.join(get_args(Mode))}")
        return cls(**content)


class BadLine(NamedTuple):
    """A skipped line, counted from 1, and the reason."""

    line: int
    why: str


def parameters_path(path: Path) -> Path:
    """The path of the parameters that belong to a file of responses."""
    return path.with_suffix(".parameters.json")


def read_parameters(path: Path) -> dict[str, Any] | None:
    """Read the parameters of a file of responses; None if the file is incomplete, ValueError if they cannot be read."""
    file = parameters_path(path)
    if not (path.is_file() and file.is_file()):
        return None
    try:
        return dict(json.loads(file.read_text()))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{file} is not a JSON object ({error}): remove it to make {path} anew") from error


def response_files(path: Path) -> list[Path]:
    """The file at a path, or the complete files of responses in a folder; FileNotFoundError if there is none."""
    if not path.is_dir():
        return [path]
    found = [file for file in sorted(path.glob("*.jsonl")) if parameters_path(file).is_file()]
    if not found:
        raise FileNotFoundError(f"{path} has no file of responses, NAME.jsonl with NAME.parameters.json beside it")
    return found


def write_responses(path: Path, responses: Iterable[Response], parameters: Mapping[str, Any]) -> None:
    """Write a file of responses and its parameters, which must be JSON values, replacing existing ones."""
    parameters_path(path).unlink(missing_ok=True)
    write_json_lines(path, map(as_object, responses))
    write_json(parameters_path(path), parameters)


def copy_responses(source: Path, target: Path) -> None:
    """Copy a complete file of responses and its parameters, replacing existing ones."""
    parameters_path(target).unlink(missing_ok=True)
    for original, copy in ((source, target), (parameters_path(source), parameters_path(target))):
        write_atomically(copy, original.read_bytes())


def as_object(response: Response) -> dict[str, Any]:
    """Convert a response to a JSON object, without `not_asked` if it is None."""
    return {name: value for name, value in asdict(response).items() if name != "not_asked" or value is not None}


def read_responses(path: Path, ids: Container[str] | None = None) -> tuple[list[Response], list[BadLine]]:
    """Read all usable lines of a file of responses to the questions with these ids (None: to any question).

    Returns:
        The responses, and the skipped lines: those that are not a response, answer none of the questions, or repeat a
        question, mode and sample.
    """
    responses, bad = [], []
    first: dict[tuple[str, Mode, int], int] = {}
    # As bytes: a line may be cut within a character, and only "\n" ends one.
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                response = Response.from_json(json.loads(line))
                if ids is not None and response.id not in ids:
                    raise ValueError(f"no question has the id {response.id!r}")
                earlier = first.setdefault((response.id, response.mode, response.sample), number)
                if earlier != number:
                    raise ValueError(f"line {earlier} already has its {response.mode} response {response.sample}")
            except (ValueError, RecursionError) as error:
                bad.append(BadLine(number, str(error)))
            else:
                responses.append(response)
    return responses, bad


def read_whole(path: Path) -> list[Response]:
    """Read a file of responses; ValueError names the first line that cannot be used."""
    responses, bad = read_responses(path)
    if bad:
        raise ValueError(f"{path}, line {bad[0].line}, is not a response of `mmupt eval`: {bad[0].why}")
    return responses
