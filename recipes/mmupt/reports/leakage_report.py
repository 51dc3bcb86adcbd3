"""The leakage check: reports overlaps of training and evaluation rows, and refuses more than are allowed.

    mmupt check-leakage --train FILE... --eval FILE... --report FOLDER

`mmupt_data.leakage` finds the overlaps.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

from mmupt.reports.html_page import paragraph, pictures, section, shown, shown_question, write_page
from mmupt_data.fingerprints import COLUMNS
from mmupt_data.leakage import Images, MatchKind, Overlap, Place, overlaps
from mmupt_data.row_schema import user_text
from verl_ext.counts import pluralize
from verl_ext.datasets.parquet_reader import MalformedRow, read_rows
from verl_ext.files import write_json

# Number of pairs on the page, and in the summary; leakage.json has all pairs.
PAIRS_SHOWN = 100
PAIRS_NAMED = 3


def check_overlap(
    train_files: Sequence[Path], eval_files: Sequence[Path], images: Images, allowed: int, report_folder: Path
) -> list[Overlap]:
    """Find overlaps by `mmupt_data.leakage.overlaps`, write the report into a folder, and return the overlaps.

    Raises:
        ValueError: as `overlaps`, or more pairs overlap than are allowed; the message has counts, the first pairs and
            the path of the report.
    """
    found = overlaps(train_files, eval_files, images)
    report = write_report(report_folder, train_files, eval_files, images, allowed, found)
    if len(found) > allowed:
        raise ValueError(outcome(found, allowed, report))
    return found


def outcome(overlaps: Sequence[Overlap], allowed: int, report: Path) -> str:
    """Compare the overlapping pairs with the allowed number, and name the report."""
    return f"{summary(overlaps)}; at most {allowed:,} may overlap. The report is {report}"


def summary(overlaps: Sequence[Overlap]) -> str:
    """Summarize the overlapping pairs in a sentence: their number by kind, and the first pairs."""
    counts = Counter(kind for overlap in overlaps for kind in overlap.kinds)
    text = f"{pluralize(len(overlaps), 'overlapping pair')} of a training row and an evaluation row"
    if overlaps:
        text += f" ({', '.join(f'{kind}: {counts[kind]:,}' for kind in get_args(MatchKind) if counts[kind])}), first "
        text += "; ".join(f"{each.train} and {each.evaluation}" for each in overlaps[:PAIRS_NAMED])
    return text


def write_report(
    folder: Path,
    train_files: Sequence[Path],
    eval_files: Sequence[Path],
    images: Images,
    allowed: int,
    overlaps: Sequence[Overlap],
) -> Path:
    """Write all pairs to `leakage.json` and the first PAIRS_SHOWN to `leakage.html`; return the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    counts = Counter(kind for overlap in overlaps for kind in overlap.kinds)
    facts = {
        "train": list(map(str, train_files)),
        "evaluation": list(map(str, eval_files)),
        "images": images,
        "allowed": allowed,
        "pairs": len(overlaps),
        "kinds": {kind: counts[kind] for kind in get_args(MatchKind)},
        "overlaps": list(map(asdict, overlaps)),
    }
    write_json(folder / "leakage.json", facts)
    first = overlaps[:PAIRS_SHOWN]
    rows = _rows(place for overlap in first for place in (overlap.train, overlap.evaluation))
    compared = {"near": "by how they look", "exact": "by their pixels"}[images]
    write_page(
        folder / "leakage.html",
        "Overlaps of training and evaluation",
        paragraph(summary(overlaps)),
        paragraph(
            f"Left: training. Right: evaluation. Images are compared {compared}; {allowed} pairs are allowed. The "
            f"first {len(first):,} of {len(overlaps):,} pairs; all are in leakage.json."
        ),
        *(
            section(
                _cell(overlap.train, rows),
                _cell(overlap.evaluation, rows),
                header=paragraph(", ".join(overlap.kinds)),
            )
            for overlap in first
        ),
    )
    return folder / "leakage.html"


def _cell(place: Place, rows: Mapping[Place, Mapping[str, Any]]) -> str:
    row = rows[place]
    images = pictures(image["bytes"] for image in row["images"] or ())
    return f"{images}<p>{shown_question(user_text(row['prompt']))}</p><small>row {shown(str(place))}</small>"


def _rows(places: Iterable[Place]) -> dict[Place, dict[str, Any]]:
    """Read the rows at the given places."""
    wanted = {(place.file, place.row): place for place in places}
    found = {}
    for file in dict.fromkeys(file for file, _ in wanted):
        for index, row in enumerate(read_rows(file, COLUMNS)):
            if (file, index) in wanted and not isinstance(row, MalformedRow):
                found[wanted[file, index]] = row
    return found
