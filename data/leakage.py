"""Whether rows that are trained on are evaluated on, too: the same image or question, or a copy that was altered.

`overlaps` compares files and `check_overlap` refuses; `data.leakage_report` says it to people. What an image and a
question are known by is in `data.fingerprints`; docs/leakage.md has what was measured of the constants here.

    python -m data.leakage --train FILE... --eval FILE... --report FOLDER
"""

import argparse
import itertools
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np

from data.fingerprints import CROP, SIDES, THUMBNAIL_SIZE, Fingerprints, read_fingerprints, shingles, words
from data.leakage_report import Kind, Overlap, Place, summary, write_report

Images = Literal["near", "exact"]
Words = tuple[str, ...]
Shingle = tuple[str, ...]

# Bits of 64 that the hash of a copy may differ by from that of the same crop of the whole. None of 3,900 altered
# drawings differed by more than 12. One in 80 pairs of unrelated ones is within it, too: hence a look at the pixels.
HASH_RADIUS = 14
# By how much the aspect ratio of a copy may differ: 5 % cropped at both sides of one axis make 1.11, the rest is for
# the rounding of small copies. The thumbnails are square and do not know.
ASPECT = 1.17
# What is asked of more images than this in one set says nothing about any of them. MathVerse has 5 versions of a
# problem, with images of their own.
ASKED_AT_MOST = 5
# A question is evidence if it has so many shingles (10 words in a row have 8) that are no boilerplate.
DISTINCTIVE_SHINGLES = 8
# In more of the questions of a set than this share, a shingle is boilerplate: "please reason step by step". Otherwise
# it would make "find x" a long question.
BOILERPLATE_SHARE = 0.2
# Questions that are not the same text share more than a template only in rarer shingles, of at most this share.
RARE_SHARE = 0.01
# Share of the rare shingles of one question that are also in the longer one: one reworded word in 12 is near.
CONTAINMENT = 0.7
# Two sets that overlap in more pairs of rows are the same, or share a placeholder; to list them helps nobody.
PAIRS_AT_MOST = 1_000_000
# What may be cropped at one side, in the last look at the pixels.
CROPS_OF_A_SIDE = (0.0, CROP / 2, CROP)
# Rows compared with all others at a time: few enough for their distances to stay in the processor's cache.
BLOCK = 16


class Stage(NamedTuple):
    """Pixels of the crops of one image are compared with those of another at this size of a side, which is kept if
    the correlation of the best crop is this high."""

    size: int
    sides: tuple[tuple[float, float], ...]
    correlation: float


# The first stage spares most pairs the second, of five times the crops and four times the pixels. In the second, copies
# correlate with 0.87 and more. Unrelated drawings reach 0.88, but hardly ever: circles with next to nothing in them.
STAGES = (
    Stage(16, SIDES, 0.6),
    Stage(32, tuple((before, after) for before in CROPS_OF_A_SIDE for after in CROPS_OF_A_SIDE), 0.85),
)


class Pictures(NamedTuple):
    """Different images of one set: `digests`, `aspects` (I,), `hashes` (I, 16) uint64, `thumbnails` (I, 64, 64)."""

    digests: list[bytes]
    aspects: np.ndarray
    hashes: np.ndarray
    thumbnails: np.ndarray


class Asked(NamedTuple):
    """What makes a question distinctive, and the rows that ask it."""

    shingles: frozenset[Shingle]
    rows: list[int]


@dataclass(frozen=True)
class _Set:
    """All rows of several files: where each is, its words, and the rows that have each image."""

    places: list[Place]
    words: list[Words]
    images: list[frozenset[bytes]]
    pictures: Pictures
    rows_of: dict[bytes, list[int]]


def overlaps(train_files: Sequence[Path], eval_files: Sequence[Path], images: Images = "near") -> list[Overlap]:
    """All pairs of a row of one set and a row of the other that share an image or a distinctive question.

    Args:
        train_files, eval_files: parquet files of `data.schema`. Exchanging the two exchanges the rows of every pair and
            nothing else; nor does the order of files and rows matter.
        images: "exact" takes only images with the same pixels for the same. It is for sets whose images differ by
            little, as procedural figures do, of which "near" takes many for copies.

    Returns:
        One overlap for each pair of rows, in the order of the files and rows.

    Raises:
        ValueError: a file lacks a column, or there are more than PAIRS_AT_MOST pairs.
    """
    train, evaluation = (_gather(files, near=images == "near") for files in (train_files, eval_files))
    kinds: dict[tuple[int, int], set[Kind]] = defaultdict(set)
    for kind, left, right in itertools.chain(
        _same_images(train, evaluation, images),
        _same_questions(train, evaluation),
    ):
        for pair in itertools.product(left, right):
            kinds[pair].add(kind)
            if len(kinds) > PAIRS_AT_MOST:
                one, other = train.places[pair[0]], evaluation.places[pair[1]]
                raise ValueError(
                    f"more than {PAIRS_AT_MOST:,} pairs of rows overlap, among them row {one} and row {other}: "
                    "the sets are the same, share a placeholder, or have images that differ by little, for which there "
                    'is images="exact"'
                )
    order: tuple[Kind, ...] = get_args(Kind)
    return [
        Overlap(train.places[left], evaluation.places[right], tuple(kind for kind in order if kind in found))
        for (left, right), found in sorted(kinds.items())
    ]


def check_overlap(
    train_files: Sequence[Path], eval_files: Sequence[Path], images: Images, allowed: int, report_folder: Path
) -> list[Overlap]:
    """Write the report of all overlaps, and refuse more than are allowed.

    Args:
        train_files, eval_files, images: as for `overlaps`.
        allowed: pairs of rows that may overlap.
        report_folder: where `leakage.html` and `leakage.json` go; created if need be.

    Returns:
        All overlaps, as `overlaps` does.

    Raises:
        ValueError: more pairs overlap than are allowed, with counts, the first pairs and the report; or as `overlaps`.
    """
    found = overlaps(train_files, eval_files, images)
    report = write_report(report_folder, train_files, eval_files, images, allowed, found)
    if len(found) > allowed:
        raise ValueError(f"{summary(found)}; {allowed} allowed, all in {report}")
    return found


def _gather(files: Sequence[Path], near: bool) -> _Set:
    places: list[Place] = []
    asked: list[Words] = []
    images: list[frozenset[bytes]] = []
    known: dict[bytes, list[np.ndarray]] = {}
    rows_of: dict[bytes, list[int]] = defaultdict(list)
    for file in dict.fromkeys(files):
        found = read_fingerprints(file, near)
        of_row = _digests_of_rows(found)
        for row, digests in enumerate(of_row):
            for digest in digests:
                rows_of[digest].append(len(places) + row)
        for digest, *looks in zip(found.digests, found.aspects, found.hashes, found.thumbnails, strict=True):
            known.setdefault(digest, looks)
        places += [Place(str(file), row, id) for row, id in enumerate(found.ids)]
        asked += map(words, found.questions)
        images += of_row
    aspects = np.array([aspect for aspect, _, _ in known.values()], np.float32)
    hashes = np.array([hashes for _, hashes, _ in known.values()], np.uint64).reshape(-1, len(SIDES) ** 2)
    thumbnails = np.array([image for _, _, image in known.values()], np.uint8)
    pictures = Pictures(list(known), aspects, hashes, thumbnails.reshape(-1, THUMBNAIL_SIZE, THUMBNAIL_SIZE))
    return _Set(places, asked, images, pictures, rows_of)


def _digests_of_rows(found: Fingerprints) -> list[frozenset[bytes]]:
    digests: list[set[bytes]] = [set() for _ in found.ids]
    for row, digest in zip(found.image_rows, found.digests, strict=True):
        digests[row].add(digest)
    return list(map(frozenset, digests))


def _same_images(train: _Set, evaluation: _Set, images: Images) -> Iterator[tuple[Kind, list[int], list[int]]]:
    for digest in train.rows_of.keys() & evaluation.rows_of.keys():
        yield "image exact", train.rows_of[digest], evaluation.rows_of[digest]
    if images == "near":
        for left, right in near_images(train.pictures, evaluation.pictures):
            yield (
                "image near",
                train.rows_of[train.pictures.digests[left]],
                evaluation.rows_of[evaluation.pictures.digests[right]],
            )


def near_images(left: Pictures, right: Pictures) -> Iterator[tuple[int, int]]:
    """The places of images of which one looks like a copy of the other without being the same, some of them twice."""
    found = itertools.chain(_copies(left, right), ((one, other) for other, one in _copies(right, left)))
    return ((one, other) for one, other in found if left.digests[one] != right.digests[other])


def _copies(whole: Pictures, copies: Pictures) -> Iterator[tuple[int, int]]:
    """Pairs of which the second looks like the first or a crop of it."""
    pixels = [uncropped(copies.thumbnails, stage) for stage in STAGES]

    def compare(start: int) -> list[tuple[int, int]]:
        pairs = []
        for index, distances in enumerate(hash_distances(whole.hashes[start : start + BLOCK], copies.hashes), start):
            ratios = np.abs(np.log(copies.aspects / whole.aspects[index]))
            near = np.flatnonzero((distances <= HASH_RADIUS) & (ratios <= np.log(ASPECT)))
            for stage, others in zip(STAGES, pixels, strict=True):
                if len(near):
                    near = near[correlations(whole.thumbnails[index], others[near], stage) >= stage.correlation]
            pairs += [(index, int(other)) for other in near]
        return pairs

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for pairs in pool.map(compare, range(0, len(whole.hashes), BLOCK)):
            yield from pairs


def hash_distances(whole: np.ndarray, copies: np.ndarray) -> np.ndarray:
    """Bits by which the hash of each copy differs from that of the crop of each whole image that is most like it.

    Hashes (I, 16) and (K, 16), uint64, of which the first are of the uncropped images; returns (I, K) uint8.
    """
    distances: np.ndarray = np.full((len(whole), len(copies)), 64, np.uint8)
    whole_copies = np.ascontiguousarray(copies[:, 0])
    for crop in whole.T:
        np.minimum(distances, np.bitwise_count(crop[:, None] ^ whole_copies), out=distances)
    return distances


def uncropped(thumbnails: np.ndarray, stage: Stage) -> np.ndarray:
    """Of thumbnails (K, 64, 64), what `correlations` takes: (K, size x size)."""
    return _normalised(_resampled(thumbnails, _resampling(SIDES[:1], stage.size))[:, 0])


def correlations(thumbnail: np.ndarray, copies: np.ndarray, stage: Stage) -> np.ndarray:
    """Of the crop of a thumbnail (64, 64) that is most like it, the correlation with each copy of `uncropped`: (K,)."""
    views = _normalised(_resampled(thumbnail, _resampling(stage.sides, stage.size)))
    return (copies @ views.T).max(axis=1)


@cache
def _resampling(sides: tuple[tuple[float, float], ...], size: int) -> np.ndarray:
    """(crops, size, 64): takes 64 pixels to the means of `size` equal parts of what each crop leaves of them."""
    pixel = np.arange(THUMBNAIL_SIZE)
    edges = np.stack([np.linspace(before, 1 - after, size + 1) for before, after in sides]) * THUMBNAIL_SIZE
    upper, lower = np.minimum(edges[:, 1:, None], pixel + 1), np.maximum(edges[:, :-1, None], pixel)
    shares = (upper - lower).clip(0)
    return (shares / shares.sum(axis=-1, keepdims=True)).astype(np.float32)


def _resampled(thumbnails: np.ndarray, crops: np.ndarray) -> np.ndarray:
    """(..., crops x crops, size x size) of (..., 64, 64): every crop of the one axis with every crop of the other."""
    count, size, _ = crops.shape
    matrix = crops.reshape(count * size, THUMBNAIL_SIZE)
    views = matrix @ thumbnails.astype(np.float32) @ matrix.T
    views = np.moveaxis(views.reshape(*views.shape[:-2], count, size, count, size), -3, -2)
    return views.reshape(*views.shape[:-4], count * count, size * size)


def _normalised(pixels: np.ndarray) -> np.ndarray:
    """Of mean 0 and length 1, so that products are correlations. What varies by less than a grey level stays near 0:
    an empty image is like no other."""
    pixels = pixels - pixels.mean(axis=-1, keepdims=True)
    length = np.linalg.norm(pixels, axis=-1, keepdims=True)
    return pixels / np.maximum(length, np.sqrt(pixels.shape[-1]))


def _same_questions(train: _Set, evaluation: _Set) -> Iterator[tuple[Kind, list[int], list[int]]]:
    """Pairs of questions that are evidence, with the rows that ask them."""
    left, right = (_distinctive(rows, (train, evaluation), BOILERPLATE_SHARE) for rows in (train, evaluation))
    for question in left.keys() & right.keys():
        yield "question exact", left[question].rows, right[question].rows
    left, right = (_distinctive(rows, (train, evaluation), RARE_SHARE) for rows in (train, evaluation))
    having: dict[Shingle, list[Words]] = defaultdict(list)
    for question, asked in left.items():
        for shingle in asked.shingles:
            having[shingle].append(question)
    for question, asked in right.items():
        shared = Counter(itertools.chain.from_iterable(having.get(shingle, ()) for shingle in asked.shingles))
        for other, count in shared.items():
            shorter = min(len(asked.shingles), len(left[other].shingles))
            if other != question and count >= CONTAINMENT * shorter and _numbers_fit(question, other):
                yield "question near", left[other].rows, asked.rows


def _distinctive(rows: _Set, sets: Sequence[_Set], share: float) -> dict[Words, Asked]:
    """The questions of the rows that are evidence, without the shingles that are frequent in any of the sets."""
    frequent = set().union(*(_frequent_shingles(each, share) for each in sets))
    asking: dict[Words, list[int]] = defaultdict(list)
    for row, question in enumerate(rows.words):
        asking[question].append(row)
    found = {
        question: Asked(shingles(question) - frequent, of)
        for question, of in asking.items()
        if len({rows.images[row] for row in of}) <= ASKED_AT_MOST
    }
    return {question: asked for question, asked in found.items() if len(asked.shingles) >= DISTINCTIVE_SHINGLES}


def _frequent_shingles(rows: _Set, share: float) -> set[Shingle]:
    """Those in questions about more images than could be chance."""
    different = {(question, images) for question, images in zip(rows.words, rows.images, strict=True)}
    having: dict[Shingle, set[object]] = defaultdict(set)
    for question, images in different:
        for shingle in shingles(question):
            # Questions without an image are different where their texts are.
            having[shingle].add(images or question)
    at_most = max(ASKED_AT_MOST, share * len(different))
    return {shingle for shingle, found in having.items() if len(found) > at_most}


def _numbers_fit(one: Words, other: Words) -> bool:
    """Whether all numbers of one are in the other: with other numbers a question is another one."""
    first, second = (Counter(word for word in question if word[0].isdigit()) for question in (one, other))
    return first <= second or second <= first


def main() -> int:
    """Compare training files with evaluation files; 0 where no more overlaps than are allowed, else 1."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--train", type=Path, nargs="+", required=True, help="parquet files that are trained on")
    parser.add_argument("--eval", type=Path, nargs="+", required=True, help="parquet files that are evaluated on")
    parser.add_argument("--report", type=Path, required=True, help="folder for leakage.html and leakage.json")
    parser.add_argument("--images", choices=get_args(Images), default="near", help="exact: no altered copies")
    parser.add_argument("--allowed", type=int, default=0, help="pairs of rows that may overlap")
    arguments = parser.parse_args()
    try:
        found = overlaps(arguments.train, arguments.eval, arguments.images)
        report = write_report(
            arguments.report, arguments.train, arguments.eval, arguments.images, arguments.allowed, found
        )
    except (OSError, ValueError) as error:
        parser.error(str(error))
    print(f"{summary(found)}; {arguments.allowed} allowed, all in {report}")
    return int(len(found) > arguments.allowed)


if __name__ == "__main__":
    sys.exit(main())
