"""What the model says in one stage of a synthesis, kept in a file: after a kill only what is missing is asked."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mmupt.evaluation.evaluation_settings import Settings
from mmupt.evaluation.generation import Asked, Kept, answers, asked_only
from mmupt.evaluation.response_files import Mode, read_whole
from mmupt.evaluation.resumable_file import PartialFile


def request(id: str, images: Sequence[bytes], text: str) -> dict[str, Any]:
    """A row, as the evaluation asks it: all images, then the text, which has no place for one."""
    content = "<image>" * len(images) + text
    return {"id": id, "prompt": [{"role": "user", "content": content}], "images": [{"bytes": one} for one in images]}


@dataclass(frozen=True)
class Stages:
    """Where all stages of a synthesis keep their responses, and what these were made from.

    data, limit: the files and how many of their rows are used, see `Settings.parameters`. replace: whether responses
    that were made otherwise are made anew. Where all stages need the same single engine, it is started once.
    """

    folder: Path
    data: Sequence[Path]
    limit: int | None
    replace: bool
    kept: Kept = field(default_factory=Kept)

    def responses(self, name: str, settings: Settings, rows: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
        """What the model says to each row, by its id, in the order of the samples; kept in `NAME.jsonl`.

        `settings` answer greedily or by sampling, not both; the ids of rows differ.

        Raises:
            OtherParametersError: there are responses that were made otherwise, and they are not to be replaced.
        """
        file = self.folder / f"{name}.jsonl"
        mode: Mode = "greedy" if settings.greedy else "sample"
        digest = hashlib.sha256()
        for row in rows:
            digest.update(json.dumps([row["id"], row["prompt"]]).encode())
        parameters = {**settings.parameters(self.data, self.limit), "asked": digest.hexdigest()}
        partial = PartialFile(file, parameters, self.replace)
        if not partial.whole:
            if missing := [Asked(name, mode, row) for row in rows if not partial.has(row["id"], mode)]:
                done = len(rows) - len(missing)
                with tqdm(total=len(rows), initial=done, desc=name, unit="request", smoothing=0.05) as bar:
                    for answered in answers(settings, missing, self.kept):
                        partial.append(asked_only(answered).responses)
                        bar.update()
            partial.finish({row["id"]: number for number, row in enumerate(rows)})
        found: dict[str, list[str]] = defaultdict(list)
        for response in read_whole(file):
            found[response.id].append(response.response)
        return dict(found)
