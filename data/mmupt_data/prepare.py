"""Names the folder of prepared data sets, and describes a data set by its manifest."""

import re
from pathlib import Path

from mmupt_data.writer import MANIFEST, problem_summary, read_manifest
from verl_ext.counts import pluralize

# Each data set is prepared into a subfolder of its name.
FOLDER = Path("datasets")
NON_COMMERCIAL = re.compile(r"\bNC\b|non-?commercial", re.IGNORECASE)


def describe(folder: Path) -> str:
    """Describe a prepared data set: rows per split, dropped rows, problems, converted images, licences."""
    manifest = read_manifest(folder)
    assert manifest is not None
    lines = []
    for split, rows in manifest["rows"].items():
        dropped = [row for row in manifest["dropped"] if row["split"] == split]
        kept = [row for row in manifest.get("kept", []) if row["split"] == split]
        counts = f"{pluralize(rows, 'row')}, {len(dropped)} dropped, {len(kept)} kept with problems"
        lines.append(f"{folder / split}.parquet: {counts}")
        lines += [f"  dropped: {line}" for line in problem_summary(dropped)]
        lines += [f"  kept: {line}" for line in problem_summary(kept)]
        for change, found in manifest["changed"][split].items():
            images = pluralize(found["images"], "image")
            lines.append(f"  {images} converted when decoded: {change}, the first: {found['first']}")
        official, read = manifest.get("official", {}).get(split), rows + len(dropped)
        if official not in (None, read):
            lines.append(f"  the source is not whole: it has {read} of {official} rows")
    if rows := manifest.get("no_question"):
        lines.append(f"  {pluralize(rows, 'row')} without a question: for synthesis, not for training")
    if columns := manifest["parameters"].get("unread_columns"):
        lines.append(f"  columns not read: {', '.join(columns)}")
    for suffix, left_out in manifest["parameters"].get("left_out", {}).items():
        lines.append(f"  left out: {left_out['files']} x {suffix}, the first: {left_out['first']}")
    if manifest["dropped"] or manifest.get("kept"):
        lines.append(f"all of them: {folder / MANIFEST}")
    for licence, rows in manifest.get("licences", {}).items():
        restricted = ": not for commercial use" if NON_COMMERCIAL.search(licence) else ""
        lines.append(f"licence of {pluralize(rows, 'row')}: {licence or 'not known'}{restricted}")
    return "\n".join(lines)
