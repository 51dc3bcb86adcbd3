"""The file of responses that `evaluate` writes and `report` reads.

`NAME.jsonl` has one row a response, and `NAME.parameters.json` beside it says what made them. A file with its
parameters is whole: both appear under their names only when complete, the parameters last.
"""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

Mode = Literal["greedy", "sample"]


@dataclass(frozen=True)
class Response:
    """One response to the question `id`.

    `mode` is how it was decoded; `sample` numbers the responses of one question and mode from 0. `response` is the text
    without special tokens, `tokens` the number that were generated, the end token included.
    """

    id: str
    mode: Mode
    sample: int
    response: str
    tokens: int


def parameters_path(path: Path) -> Path:
    """Return where the parameters of a file of responses lie."""
    return path.with_suffix(".parameters.json")


def read_parameters(path: Path) -> dict[str, Any] | None:
    """Return what made a file of responses, None where there is no whole file."""
    if not (path.is_file() and parameters_path(path).is_file()):
        return None
    return dict(json.loads(parameters_path(path).read_text()))


def write_responses(path: Path, responses: Iterable[Response], parameters: Mapping[str, Any]) -> None:
    """Write a file of responses and its parameters, which JSON must be able to hold, in place of any that are there."""
    rows = "".join(f"{json.dumps(asdict(response))}\n" for response in responses)
    path.parent.mkdir(parents=True, exist_ok=True)
    parameters_path(path).unlink(missing_ok=True)
    write_atomically(path, rows.encode())
    write_atomically(parameters_path(path), f"{json.dumps(parameters, indent=2)}\n".encode())


def read_responses(path: Path) -> list[Response]:
    """Read a file of responses.

    Raises:
        ValueError: a row that is no response, by file and line.
    """
    responses = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        try:
            responses.append(Response(**json.loads(line)))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}, line {number}, is no response of recipes.mmupt.evaluate: {error}") from error
    return responses


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that its name never shows a part of it."""
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_bytes(content)
    os.replace(temporary, path)
