"""Overlaps of training and evaluation rows as people and programs read them: a sentence, one HTML page, JSON.

What overlaps is found in `data.leakage`. Questions and ids are data that nobody has vouched for, so that all text on
the page is escaped, and its pictures are encoded anew.
"""

import base64
import html
import io
import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from data.fingerprints import COLUMNS, decode, question_of, read_batches

Kind = Literal["image exact", "image near", "question exact", "question near"]

# Pairs that a page shows with pictures, and that a sentence names; leakage.json has all of them.
PAIRS_SHOWN = 100
PAIRS_NAMED = 3
# Longest side of a picture on the page, px.
PICTURE_SIZE = 260
# A question on the page is cut here.
CHARACTERS_SHOWN = 2_000

PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Overlaps of training and evaluation</title>
<style>
body {{ font: 15px/1.4 sans-serif; max-width: 1000px; margin: 2em auto; padding: 0 1em }}
section {{ border-top: 1px solid #ccc; padding: 1em 0; display: grid; grid-template-columns: 1fr 1fr; gap: 1em }}
h2 {{ grid-column: 1 / 3; font-size: 1em; margin: 0 }}
img {{ max-width: 100%; border: 1px solid #ddd }}
p {{ white-space: pre-wrap; overflow-wrap: anywhere }}
</style>
<h1>Overlaps of training and evaluation</h1>
<p>{summary}</p>
<p>Left: trained on. Right: evaluated on. Images are compared {images}; {allowed} pairs are allowed. {shown}</p>
{pairs}
</html>
"""


@dataclass(frozen=True, order=True)
class Place:
    """A row: the file as it was given, the row counted from 0, and its id."""

    file: str
    row: int
    id: str

    def __str__(self) -> str:
        return f"{self.row} of {self.file} ({self.id!r})"


@dataclass(frozen=True)
class Overlap:
    """A row that is trained on, a row that is evaluated on, and all that they share."""

    train: Place
    evaluation: Place
    kinds: tuple[Kind, ...]


def summary(overlaps: Sequence[Overlap]) -> str:
    """How many overlap and in what, and the first of them, in a sentence."""
    counts = Counter(kind for overlap in overlaps for kind in overlap.kinds)
    text = f"{len(overlaps):,} pairs of a training row and an evaluation row overlap"
    if overlaps:
        text += f" ({', '.join(f'{kind}: {counts[kind]:,}' for kind in get_args(Kind) if counts[kind])}), first "
        text += "; ".join(f"{each.train} and {each.evaluation}" for each in overlaps[:PAIRS_NAMED])
    return text


def write_report(
    folder: Path,
    train_files: Sequence[Path],
    eval_files: Sequence[Path],
    images: str,
    allowed: int,
    overlaps: Sequence[Overlap],
) -> Path:
    """Write `leakage.json`, all pairs, and `leakage.html`, the first PAIRS_SHOWN side by side; returns the page."""
    folder.mkdir(parents=True, exist_ok=True)
    counts = Counter(kind for overlap in overlaps for kind in overlap.kinds)
    facts = {
        "train": list(map(str, train_files)),
        "evaluation": list(map(str, eval_files)),
        "images": images,
        "allowed": allowed,
        "pairs": len(overlaps),
        "kinds": {kind: counts[kind] for kind in get_args(Kind)},
        "overlaps": list(map(asdict, overlaps)),
    }
    _write(folder / "leakage.json", json.dumps(facts, indent=1) + "\n")
    shown = overlaps[:PAIRS_SHOWN]
    rows = _rows(place for overlap in shown for place in (overlap.train, overlap.evaluation))
    page = PAGE.format(
        summary=html.escape(summary(overlaps)),
        images={"near": "by how they look", "exact": "by their pixels"}[images],
        allowed=allowed,
        shown=f"The first {len(shown):,} of {len(overlaps):,} pairs; all are in leakage.json.",
        pairs="\n".join(_section(overlap, rows) for overlap in shown),
    )
    _write(folder / "leakage.html", page)
    return folder / "leakage.html"


def _section(overlap: Overlap, rows: dict[Place, dict[str, Any]]) -> str:
    return (
        f"<section><h2>{', '.join(overlap.kinds)}</h2>"
        f"{_cell(overlap.train, rows)}{_cell(overlap.evaluation, rows)}</section>"
    )


def _cell(place: Place, rows: dict[Place, dict[str, Any]]) -> str:
    row = rows[place]
    question = question_of(row["prompt"])[:CHARACTERS_SHOWN]
    pictures = "".join(picture(image["bytes"]) for image in row["images"] or ())
    return f"<div>{pictures}<p>{html.escape(question)}</p><small>row {html.escape(str(place))}</small></div>"


def picture(encoded: bytes) -> str:
    """An image of a row as an HTML element that needs no other file, encoded anew."""
    try:
        image = decode(encoded)
    # The rows may overlap by their questions. Decoders raise all sorts of things on damaged bytes.
    except Exception:
        return "<em>an image that cannot be decoded</em> "
    image.thumbnail((PICTURE_SIZE, PICTURE_SIZE))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return f'<img alt="" src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}">'


def _rows(places: Iterable[Place]) -> dict[Place, dict[str, Any]]:
    """What stands at these places."""
    wanted = {(place.file, place.row): place for place in places}
    found = {}
    for file in dict.fromkeys(file for file, _ in wanted):
        index = 0
        for batch in read_batches(Path(file), COLUMNS):
            for row in batch:
                if (file, index) in wanted:
                    found[wanted[file, index]] = row
                index += 1
    return found


def _write(path: Path, text: str) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text, encoding="utf-8", errors="replace")
    os.replace(temporary, path)
