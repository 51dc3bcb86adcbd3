"""A file of responses that is still being written. After a kill, the next process continues it.

`NAME.partial.jsonl` has the parameters in its first line, then one line per question and mode with all its responses,
in the order of completion. `NAME.jsonl` replaces it once all responses are there.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmupt.evaluation.response_files import Mode, Response, as_object, parameters_path, read_parameters, write_responses
from verl_ext.files import json_line, write_json, write_json_lines


class OtherParametersError(ValueError):
    """The file `path` has responses made with other values of the parameters `names`."""

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        super().__init__(
            f"{path} has responses made with other settings ({', '.join(names)}): set output=ANOTHER_FOLDER, or "
            "replace=true to generate them again"
        )
        self.path, self.names = path, names


class ResumableFile:
    """The responses to one set of questions, complete or not.

    Args:
        path: of the complete file, `NAME.jsonl`.
        parameters: everything that determines the responses, as JSON can hold it.
        replace: discard responses made with other parameters.

    Raises:
        OtherParametersError: the file has responses made with other parameters, and `replace` is not set.
        ValueError: an existing file cannot be read.
    """

    def __init__(self, path: Path, parameters: Mapping[str, Any], replace: bool = False) -> None:
        self._path, self._parameters = path, dict(parameters)
        self._growing = path.with_suffix(".partial.jsonl")
        self._groups: dict[tuple[str, Mode], list[Response]] = {}
        whole, own = read_parameters(path), _without_folders(self._parameters)
        self.whole = whole is not None and _without_folders(whole) == own
        if self.whole and whole != self._parameters:
            # Scoring reads the data from the paths on file.
            write_json(parameters_path(path), self._parameters)
        if not self.whole:
            # The last line may have been cut.
            written = self._growing.read_text().split("\n")[:-1] if self._growing.is_file() else []
            lines = [self._parsed(line, number) for number, line in enumerate(written, start=1)]
            made_with = [_without_folders(found) for found in (whole, lines[0] if lines else None) if found is not None]
            same = bool(lines) and made_with[-1] == own
            if not replace and not same and made_with:
                other = made_with[-1]
                names = sorted({*other, *own})
                raise OtherParametersError(path, [name for name in names if other.get(name) != own.get(name)])
            for line in lines[1:] if same else ():
                self._add([Response.from_json(one) for one in line])
            # Drops a line that was cut, so that the next line does not continue it.
            path.parent.mkdir(parents=True, exist_ok=True)
            kept = [self._parameters, *([as_object(one) for one in group] for group in self._groups.values())]
            write_json_lines(self._growing, kept)

    def _parsed(self, line: str, number: int) -> Any:
        try:
            return json.loads(line)
        except ValueError as error:
            raise ValueError(f"{self._growing}, line {number}, is not JSON ({error}): remove the line") from error

    def has(self, id: str, mode: Mode) -> bool:
        """Whether the file has the responses of this mode to a question."""
        return self.whole or (id, mode) in self._groups

    def append(self, group: Sequence[Response]) -> None:
        """Append all responses of one mode to one question; they are on file when this returns."""
        with self._growing.open("a") as file:
            file.write(json_line([as_object(response) for response in group]))
        self._add(group)

    def finish(self, order: Mapping[str, int]) -> None:
        """Write the complete file, greedy responses first, each mode in the order of the questions."""
        ordered = sorted(self._groups.items(), key=lambda item: (item[0][1], order[item[0][0]]))
        write_responses(self._path, [response for _, group in ordered for response in group], self._parameters)
        self._growing.unlink()
        self.whole = True

    def _add(self, group: Sequence[Response]) -> None:
        self._groups[group[0].id, group[0].mode] = list(group)


def _without_folders(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Reduce the absolute path of a model, and the paths of the data, to names.

    Weights and digests identify these files, also after their folder has been moved.
    """
    reduced = dict(parameters)
    # A relative path cannot be told from a name on the hub.
    if os.path.isabs(reduced.get("model") or ""):
        reduced["model"] = Path(reduced["model"]).name
    if "data" in reduced:
        reduced["data"] = sorted(f"{Path(file).name} {digest}" for file, digest in reduced["data"].items())
    return reduced
