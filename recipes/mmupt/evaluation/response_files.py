"""The file of responses: one JSON line a response, and `NAME.parameters.json` beside it, which says what made them.

A file with its parameters is whole: both appear under their names only when complete, the parameters last. How a file
grows response by response until then is in `mmupt.evaluation.resumable_file`.
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

    `mode` is how it was decoded; `sample` numbers the responses of one question and mode from 0. `response` is the text
    without special tokens, `tokens` the number that were generated, the end token included; None where nobody counted.
    `not_asked` says why the model could not be asked at all, by an image that nobody can decode: the response is empty
    then, and wrong whatever the rule.
    """

    id: str
    mode: Mode
    sample: int
    response: str
    tokens: int | None = None
    not_asked: str | None = None

    @classmethod
    def from_json(cls, content: Any) -> "Response":
        """Read one decoded JSON line; ValueError says what is wrong with it."""
        if not isinstance(content, dict):
            raise ValueError("no object")
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
    """A line of a file, counted from 1, that is left out, and why."""

    line: int
    why: str


def parameters_path(path: Path) -> Path:
    """Return where the parameters of a file of responses lie."""
    return path.with_suffix(".parameters.json")


def read_parameters(path: Path) -> dict[str, Any] | None:
    """Return what made a file of responses, None where there is no whole file."""
    if not (path.is_file() and parameters_path(path).is_file()):
        return None
    return dict(json.loads(parameters_path(path).read_text()))


def response_files(path: Path) -> list[Path]:
    """The files of responses at a path: the file that it is, or the whole ones in the folder that it is.

    Raises:
        FileNotFoundError: there is none.
    """
    if not path.is_dir():
        return [path]
    found = [file for file in sorted(path.glob("*.jsonl")) if parameters_path(file).is_file()]
    if not found:
        raise FileNotFoundError(f"{path} has no file of responses, NAME.jsonl with NAME.parameters.json beside it")
    return found


def write_responses(path: Path, responses: Iterable[Response], parameters: Mapping[str, Any]) -> None:
    """Write a file of responses and its parameters, which JSON must be able to hold, in place of any that are there."""
    parameters_path(path).unlink(missing_ok=True)
    write_json_lines(path, map(as_object, responses))
    write_json(parameters_path(path), parameters)


def copy_responses(source: Path, target: Path) -> None:
    """Copy a whole file of responses and its parameters, in place of any that are there."""
    parameters_path(target).unlink(missing_ok=True)
    for one, other in ((source, target), (parameters_path(source), parameters_path(target))):
        write_atomically(other, one.read_bytes())


def as_object(response: Response) -> dict[str, Any]:
    """A response as JSON holds it; `not_asked` is there only where there is a reason."""
    return {name: value for name, value in asdict(response).items() if name != "not_asked" or value is not None}


def read_responses(path: Path, ids: Container[str] | None = None) -> tuple[list[Response], list[BadLine]]:
    """Read what can be read of a file of responses.

    Args:
        path: one JSON line a response.
        ids: those of the questions; None where they are not known.

    Returns:
        The responses, and the lines left out: those that are no response, that answer none of the questions, or that
        are a second response of the same question, mode and sample.
    """
    responses, bad = [], []
    first: dict[tuple[str, Mode, int], int] = {}
    # In bytes, as a line may be cut within a letter, and as only "\n" ends one.
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                response = Response.from_json(json.loads(line))
                if ids is not None and response.id not in ids:
                    raise ValueError(f"no question has the id {response.id!r}")
                earlier = first.setdefault((response.id, response.mode, response.sample), number)
                if earlier != number:
                    raise ValueError(f"line {earlier} has {response.mode} response {response.sample} of it already")
            except (ValueError, RecursionError) as error:
                bad.append(BadLine(number, str(error)))
            else:
                responses.append(response)
    return responses, bad


def read_whole(path: Path) -> list[Response]:
    """Read a file of responses; ValueError, by file and line, where a line cannot be used."""
    responses, bad = read_responses(path)
    if bad:
        raise ValueError(f"{path}, line {bad[0].line}, is no response of `mmupt eval`: {bad[0].why}")
    return responses
