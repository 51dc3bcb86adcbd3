"""Resumable cache in front of the engine: responses are kept on file, and only missing responses are generated."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mmupt.console import Phase, counted, emit
from mmupt.evaluation.generation import (
    QuestionRequest,
    QuestionResponses,
    ReusableEngine,
    answer_questions,
    empty_responses,
    require_responses,
)
from mmupt.evaluation.generation_settings import GenerationSettings
from mmupt.evaluation.response_files import read_whole
from mmupt.evaluation.resumable_file import ResumableFile
from mmupt_data.row_schema import PLACEHOLDER
from verl_ext.images import ImageError, decode

# Rows by the name of their file of responses.
Rows = Mapping[str, Sequence[Mapping[str, Any]]]


def prompt_row(id: str, images: Sequence[bytes], text: str) -> dict[str, Any]:
    """Make a row with a prompt of all images, followed by a text without image placeholders."""
    content = PLACEHOLDER * len(images) + text
    return {
        "id": id,
        "prompt": [{"role": "user", "content": content}],
        "images": [{"bytes": image} for image in images],
    }


def answer_missing(
    settings: GenerationSettings,
    files: Mapping[str, ResumableFile],
    rows: Rows,
    engine: ReusableEngine | None = None,
    refuse: bool = False,
) -> None:
    """Generate the responses that are missing from files of responses, and finish the files.

    Args:
        settings: of the generation.
        files: by name; complete files are left alone.
        rows: of every incomplete file, in the order of the file.
        engine: reused across calls.
        refuse: raise Refused for a row that the model cannot be asked, instead of writing empty responses that say why.
    """
    rows = {name: of_file for name, of_file in rows.items() if not files[name].whole}
    requests = [
        QuestionRequest(name, mode, row)
        for name, of_file in rows.items()
        for mode in settings.modes
        for row in of_file
        if not files[name].has(row["id"], mode)
    ]

    def keep(answered: QuestionResponses) -> None:
        files[answered.name].append((require_responses(answered) if refuse else answered).responses)

    failing = _undecodable(requests)
    decodable = []
    for request in requests:
        if why := failing.get((request.name, request.row["id"])):
            keep(empty_responses(request, settings, why))
        else:
            decodable.append(request)
    if decodable:
        total = sum(map(len, rows.values())) * len(settings.modes)
        done = total - len(decodable)
        bar = tqdm(total=total, initial=done, desc=", ".join(rows), unit="request", smoothing=0.05)
        with bar:
            for answered in counted(answer_questions(settings, decodable, engine), done, total, "requests"):
                keep(answered)
                bar.update()
    for name, of_file in rows.items():
        files[name].finish({row["id"]: number for number, row in enumerate(of_file)})


def _undecodable(requests: Sequence[QuestionRequest]) -> dict[tuple[str, str], str]:
    """The reasons why images cannot be decoded, by file and row id; only rows with such an image."""
    rows = {(request.name, request.row["id"]): request.row for request in requests}

    def reason(row: Mapping[str, Any]) -> str | None:
        for index, image in enumerate(row["images"] or []):
            try:
                decode(image["bytes"] or b"")
            except ImageError as error:
                return f"image {index} {error}"
        return None

    with ThreadPoolExecutor() as threads:
        return {key: why for key, why in zip(rows, threads.map(reason, rows.values()), strict=True) if why}


@dataclass(frozen=True)
class ResponseCache:
    """A folder with all responses of a pipeline of several stages, such as a synthesis or a baseline.

    data, limit: the source files of the prompts and the number of rows used, see `GenerationSettings.parameters`.
    replace: regenerate responses made with other settings instead of refusing them.
    engine: shared by all stages that it can serve.
    """

    folder: Path
    data: Sequence[Path]
    limit: int | None
    replace: bool
    engine: ReusableEngine = field(default_factory=ReusableEngine)

    def responses(
        self, stage: str, settings: GenerationSettings, rows: Sequence[Mapping[str, Any]]
    ) -> dict[str, list[str]]:
        """Return the responses to each row by its id, in the order of samples, and keep them in `STAGE.jsonl`.

        Ids are unique, and `settings` are either greedy or sampling.

        Raises:
            OtherParametersError: the file has responses made with other settings, and `replace` is not set.
            Refused: a row cannot be asked; the message names it.
        """
        emit(Phase(f"generate responses: {stage}"))
        file = self.folder / f"{stage}.jsonl"
        digest = hashlib.sha256()
        for row in rows:
            digest.update(json.dumps([row["id"], row["prompt"]]).encode())
        parameters = {**settings.parameters(self.data, self.limit), "asked": digest.hexdigest()}
        kept = ResumableFile(file, parameters, self.replace)
        answer_missing(settings, {stage: kept}, {stage: rows}, self.engine, refuse=True)
        found: dict[str, list[str]] = defaultdict(list)
        for response in read_whole(file):
            found[response.id].append(response.response)
        return dict(found)
