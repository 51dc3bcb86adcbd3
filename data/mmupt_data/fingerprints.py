"""Computes fingerprints of rows: the digest and thumbnails of each image, and the text of each question.

They are cached beside the data file in `NAME.fingerprints.parquet`. `mmupt_data.leakage` compares them.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from mmupt_data.row_schema import user_text
from verl_ext.datasets.parquet_reader import MalformedRow, in_batches, read_rows
from verl_ext.files import replacing
from verl_ext.images import ImageError, decode

# Increment this when fingerprints change, to invalidate caches.
VERSION = 4
# Large enough to keep the lines of a drawing distinct.
THUMBNAIL_SIZE = 64
# The parts of an image that a copy may show, see `_boxes`.
VIEWS = ("whole", "ink", "untitled", "uncaptioned")
# Ink differs from the margin by more than this, of 255: above the noise of scans and JPEG, below grey lines.
INK = 48
# Larger images are reduced to less than twice this many px per side before their ink is located, to save time.
INK_SIZE = 1024
# Ink shorter than this, in px, is no drawing: all dots look alike.
SPECK = 24

COLUMNS = ("id", "prompt", "images")
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("question", pa.string()),
        (
            "images",
            pa.list_(
                pa.struct(
                    [
                        ("digest", pa.binary(32)),
                        ("aspects", pa.binary(4 * len(VIEWS))),
                        ("thumbnails", pa.binary(len(VIEWS) * THUMBNAIL_SIZE**2)),
                    ]
                )
            ),
        ),
    ]
)


@dataclass(frozen=True)
class ImageFingerprint:
    """`digest`: SHA-256 of size and RGB pixels. `aspects`: width by height of each of the VIEWS, float32 (4,).
    `thumbnails`: grey pixels of each of the VIEWS, uint8 (4, 64, 64)."""

    digest: bytes
    aspects: np.ndarray
    thumbnails: np.ndarray


@dataclass(frozen=True)
class RowFingerprint:
    """The fingerprint of a row: its id, the text of its question, and its images in order."""

    id: str
    question: str
    images: list[ImageFingerprint]


def image_fingerprint(encoded: bytes, near: bool = True) -> ImageFingerprint:
    """The fingerprint of an encoded image; raises ImageError like `verl_ext.images.decode`.

    Without `near`, only the digest is computed, in a fraction of the time; the other fields are zeros.
    """
    image = decode(encoded).image
    digest = hashlib.sha256(b"%d x %d " % image.size + image.tobytes()).digest()
    aspects: np.ndarray = np.zeros(len(VIEWS), np.float32)
    thumbnails: np.ndarray = np.zeros((len(VIEWS), THUMBNAIL_SIZE, THUMBNAIL_SIZE), np.uint8)
    if near:
        grey = image.convert("L")
        for view, (left, top, right, bottom) in enumerate(_boxes(grey)):
            aspects[view] = (right - left) / (bottom - top)
            thumbnails[view] = grey.resize(thumbnails[view].shape, Image.Resampling.BOX, (left, top, right, bottom))
    return ImageFingerprint(digest, aspects, thumbnails)


def _boxes(grey: Image.Image) -> list[tuple[float, float, float, float]]:
    """Left, top, right and bottom of each of the VIEWS, in pixels of the image.

    "ink" is the image without its margins, which may differ in colour. "untitled" is the ink below its first gap of
    empty rows, "uncaptioned" the ink above its last gap. Without gaps both equal the ink; without ink all views equal
    the whole image.
    """
    small = grey.reduce(max(1, max(grey.size) // INK_SIZE))
    pixels = np.asarray(small).astype(np.int16)
    top, left, (bottom, right) = 0, 0, pixels.shape
    # Two passes, because other margins may reach into the corners of a side. Each margin is cut once: whatever borders
    # on it is ink, even a line of one shade.
    for _ in range(2):
        first, last = _span(pixels[:, left:right], top, bottom)
        top, bottom = top or first, last if bottom == len(pixels) else bottom
        first, last = _span(pixels[top:bottom].T, left, right)
        left, right = left or first, last if right == len(pixels[0]) else right
    # A stripe from side to side has columns of one shade, which are not a margin.
    if top >= bottom or left >= right or max(bottom - top, right - left) < SPECK:
        return [(0, 0, *grey.size)] * len(VIEWS)
    # Rows in the shade of the first or last row are empty. Gaps below a hundredth of the height are artefacts of
    # scaling and JPEG.
    shades = np.median(pixels[[0, -1]], axis=1)[:, None, None]
    filled = top + np.flatnonzero((np.abs(pixels[top:bottom, left:right] - shades) > INK).any(axis=2).all(axis=0))
    gaps = np.flatnonzero(np.diff(filled) > max(1, (bottom - top) / 100))
    spans = [(top, bottom, left, right)] * 3
    if len(gaps):
        for view, (first, last) in enumerate(((filled[gaps[0] + 1], bottom), (top, filled[gaps[-1]] + 1)), 1):
            start, end = _span(pixels[first:last].T, left, right)
            # All columns of a horizontal line have one shade, which leaves an empty span.
            spans[view] = (first, last, *((start, end) if start < end else (left, right)))
    wide, high = grey.width / small.width, grey.height / small.height
    boxes = [(wide * start, high * first, wide * end, high * last) for first, last, start, end in spans]
    return [(0, 0, *grey.size), *boxes]


def _span(pixels: np.ndarray, first: int, last: int) -> tuple[int, int]:
    """The rows [first, last) without the margins at both ends; empty if all rows are margin.

    A margin consists of rows in the shade of the outermost row.
    """
    for end in (False, True):
        rows = pixels[first:last][::-1] if end else pixels[first:last]
        if not rows.size:
            return first, first
        filled = (np.abs(rows - np.median(rows[0])) > INK).any(axis=1)
        margin = int(filled.argmax()) if filled.any() else len(rows)
        first, last = (first, last - margin) if end else (first + margin, last)
    return first, last


def read_fingerprints(file: Path, near: bool = True) -> list[RowFingerprint]:
    """The fingerprint of each row of a file, cached beside it if the folder is writable.

    Without `near`, `aspects` and `thumbnails` may be zeros, see `image_fingerprint`. Rows and images that cannot be
    read are printed and not compared.

    Raises:
        ValueError: a column is missing; the message names the file.
    """
    stat = file.stat()
    of_file = {"version": VERSION, "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    whole, without = (json.dumps({**of_file, "near": flag}).encode() for flag in (True, False))
    cache = cache_path(file)
    table = _read_cache(cache, (whole,) if near else (whole, without))
    if table is None:
        key = whole if near else without
        left_out: list[str] = []
        table = pa.Table.from_batches(list(_look(file, near, left_out)), SCHEMA)
        table = table.replace_schema_metadata({"fingerprints": key, "left_out": json.dumps(left_out)})
        # Without a cache, the next call computes them again.
        with contextlib.suppress(OSError), replacing(cache, concurrent=True) as temporary:
            pq.write_table(table, temporary, compression="zstd")
    for line in json.loads(table.schema.metadata[b"left_out"]):
        print(f"{file}: {line}")
    return [
        RowFingerprint(row["id"], row["question"], list(map(_from_bytes, row["images"])))
        for batch in table.to_batches()
        for row in batch.to_pylist()
    ]


def cache_path(file: Path) -> Path:
    """The file that caches the fingerprints of a data file."""
    return file.with_suffix(".fingerprints.parquet")


def _look(file: Path, near: bool, left_out: list[str]) -> Iterator[pa.RecordBatch]:
    """Yield the fingerprints of rows; append a line to `left_out` for each row and image that is not compared."""

    def compared(row: dict[str, Any] | MalformedRow) -> dict[str, Any]:
        if not isinstance(row, MalformedRow):
            return row
        left_out.append(f"row {row.row} ({row.id!r}): {row.problem}; the row is not compared")
        return {"id": row.id, "prompt": [], "images": []}

    def look(image: tuple[int, str, bytes]) -> dict[str, Any] | None:
        row, id, encoded = image
        try:
            found = image_fingerprint(encoded, near)
        # No model sees such an image.
        except ImageError as error:
            left_out.append(f"row {row} ({id!r}): an image cannot be decoded and is not compared ({error})")
            return None
        return {
            "digest": found.digest,
            "aspects": found.aspects.tobytes(),
            "thumbnails": found.thumbnails.tobytes(),
        }

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for rows in in_batches(enumerate(map(compared, read_rows(file, COLUMNS)))):
            looked = pool.map(
                look, [(row, each["id"], image["bytes"]) for row, each in rows for image in each["images"]]
            )
            found = [
                {
                    "id": each["id"],
                    "question": user_text(each["prompt"]),
                    "images": [one for _ in each["images"] if (one := next(looked)) is not None],
                }
                for _, each in rows
            ]
            yield pa.RecordBatch.from_pylist(found, schema=SCHEMA)


def _read_cache(cache: Path, keys: Sequence[bytes]) -> pa.Table | None:
    try:
        table = pq.read_table(cache, partitioning=None)
    except (OSError, pa.ArrowException):
        return None
    fits = table.schema.equals(SCHEMA) and (table.schema.metadata or {}).get(b"fingerprints") in keys
    return table if fits else None


def _from_bytes(image: dict[str, bytes]) -> ImageFingerprint:
    thumbnails = np.frombuffer(image["thumbnails"], np.uint8).reshape(-1, THUMBNAIL_SIZE, THUMBNAIL_SIZE)
    return ImageFingerprint(image["digest"], np.frombuffer(image["aspects"], np.float32), thumbnails)
