"""What the model says in one stage of a synthesis, kept in a file, so that after a kill only what is missing is asked."""

import gc
import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from recipes.mmupt.evaluation.generation import Asked, answers
from recipes.mmupt.evaluation.partial import PartialFile
from recipes.mmupt.evaluation.responses import Mode, read_whole
from recipes.mmupt.evaluation.settings import Settings


def request(id: str, images: Sequence[bytes], text: str) -> dict[str, Any]:
    """A row, as the evaluation asks it: all images, then the text, which has no place for one."""
    content = "<image>" * len(images) + text
    return {"id": id, "prompt": [{"role": "user", "content": content}], "images": [{"bytes": one} for one in images]}


def responses(
    file: Path,
    settings: Settings,
    rows: Sequence[Mapping[str, Any]],
    data: Sequence[Path],
    limit: int | None,
    replace: bool = False,
) -> dict[str, list[str]]:
    """What the model says to each row, by its id, in the order of the samples.

    Args:
        file: where the responses are kept, and taken from where they are there already.
        settings: how the model answers, greedily or by sampling, not both.
        rows: what is asked; their ids differ.
        data, limit: what the rows were made from, see `Settings.parameters`.
        replace: whether responses made otherwise are made anew.

    Raises:
        OtherParametersError: there are such responses, and they are not to be replaced.
    """
    mode: Mode = "greedy" if settings.greedy else "sample"
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps([row["id"], row["prompt"]]).encode())
    partial = PartialFile(file, {**settings.parameters(data, limit), "asked": digest.hexdigest()}, replace)
    if not partial.whole:
        missing = [Asked(file.stem, mode, row) for row in rows if not partial.has(row["id"], mode)]
        if missing:
            done = len(rows) - len(missing)
            with tqdm(total=len(rows), initial=done, desc=file.stem, unit="request", smoothing=0.05) as bar:
                for answered in answers(settings, missing):
                    partial.append(answered.responses)
                    bar.update()
            # The memory of this stage's engine is for that of the next.
            gc.collect()
        partial.finish({row["id"]: number for number, row in enumerate(rows)})
    found: dict[str, list[str]] = defaultdict(list)
    for response in read_whole(file):
        found[response.id].append(response.response)
    return dict(found)
