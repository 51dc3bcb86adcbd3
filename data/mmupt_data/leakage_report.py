"""Overlaps of training and evaluation rows as people and programs read them: a sentence, one HTML page, JSON.

What overlaps is found in `mmupt_data.leakage`; how a page shows rows that nobody has vouched for is in
`mmupt_data.html_page`.
"""

import html
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from mmupt_data.fingerprints import COLUMNS
from mmupt_data.html_page import picture, shown, write_page
from mmupt_data.row_schema import user_text
from verl_ext.datasets.parquet_reader import MalformedRow, read_rows
from verl_ext.files import write_json

Kind = Literal["image exact", "image near", "question exact", "question near"]

# Pairs that a page shows with pictures, and that a sentence names; leakage.json has all of them.
PAIRS_SHOWN = 100
PAIRS_NAMED = 3

BODY = """<p>{summary}</p>
<p>Left: trained on. Right: evaluated on. Images are compared {images}; {allowed} pairs are allowed. {shown}</p>
{pairs}"""


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
    write_json(folder / "leakage.json", facts)
    first = overlaps[:PAIRS_SHOWN]
    rows = _rows(place for overlap in first for place in (overlap.train, overlap.evaluation))
    body = BODY.format(
        summary=html.escape(summary(overlaps)),
        images={"near": "by how they look", "exact": "by their pixels"}[images],
        allowed=allowed,
        shown=f"The first {len(first):,} of {len(overlaps):,} pairs; all are in leakage.json.",
        pairs="\n".join(_section(overlap, rows) for overlap in first),
    )
    write_page(folder / "leakage.html", "Overlaps of training and evaluation", body)
    return folder / "leakage.html"


def _section(overlap: Overlap, rows: dict[Place, dict[str, Any]]) -> str:
    return (
        f"<section><h2>{', '.join(overlap.kinds)}</h2>"
        f"{_cell(overlap.train, rows)}{_cell(overlap.evaluation, rows)}</section>"
    )


def _cell(place: Place, rows: dict[Place, dict[str, Any]]) -> str:
    row = rows[place]
    pictures = "".join(picture(image["bytes"]) for image in row["images"] or ())
    return f"<div>{pictures}<p>{shown(user_text(row['prompt']))}</p><small>row {html.escape(str(place))}</small></div>"


def _rows(places: Iterable[Place]) -> dict[Place, dict[str, Any]]:
    """What stands at these places."""
    wanted = {(place.file, place.row): place for place in places}
    found = {}
    for file in dict.fromkeys(file for file, _ in wanted):
        for index, row in enumerate(read_rows(file, COLUMNS)):
            if (file, index) in wanted and not isinstance(row, MalformedRow):
                found[wanted[file, index]] = row
    return found
