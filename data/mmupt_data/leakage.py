"""Finds overlap between training and evaluation rows: the same image or question, or an altered copy of it.

`overlaps` compares files; it neither reports nor refuses overlap. `mmupt_data.fingerprints` computes the fingerprints
that are compared; docs/leakage.md has the measurements behind the constants.
"""

import itertools
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np

from mmupt_data.fingerprints import THUMBNAIL_SIZE, VIEWS, ImageFingerprint, read_fingerprints
from mmupt_data.question_words import shingles, words

MatchKind = Literal["image exact", "image near", "question exact", "question near"]
Images = Literal["near", "exact"]
Words = tuple[str, ...]
Shingle = tuple[str, ...]

# Largest share of the width or height that a copy may lack on each side.
CROP = 0.05
# All ways to crop one axis: each side by CROP or not at all; FINE_SIDES also by half of CROP.
SIDES = ((0.0, 0.0), (0.0, CROP), (CROP, 0.0), (CROP, CROP))
FINE_SIDES = tuple(itertools.product((0.0, CROP / 2, CROP), repeat=2))
# Side of the picture whose cosine transform is hashed, and the number of low frequencies per axis.
HASHED_SIZE, FREQUENCIES = 32, 8
# Bits of 64 by which the hash of a copy may differ from that of the same crop of the original. Many unrelated images
# are within this radius, so pixels are compared next.
HASH_RADIUS = 14
# Sides of the thumbnails whose pixels are compared. The coarse comparison, with few crops, rejects most pairs.
COARSE_SIZE, FINE_SIZE = 16, 32
COARSE_CORRELATION = 0.6
# A question about more images of a set than this is no evidence. MathVerse has 5 versions per problem, each with its
# own image.
ASKED_AT_MOST = 5
# A question is evidence if it has this many shingles that are not boilerplate; 10 words have 8 shingles.
DISTINCTIVE_SHINGLES = 8
# A shingle in more than this share of a set's questions is boilerplate, such as "please reason step by step", which
# would make "find x" a long question.
BOILERPLATE_SHARE = 0.2
# Near-duplicates are found by rare shingles, in at most this share of a set's questions: other shingles belong to
# templates.
RARE_SHARE = 0.01
# Share of the shorter question's rare shingles that the longer one must have: one reworded word in 12 is near.
CONTAINMENT = 0.7
# Sets that overlap in more pairs of rows are the same or share a placeholder; a list of the pairs would not help.
PAIRS_AT_MOST = 1_000_000
# Images compared with all others at a time, so few that their distances stay in the CPU cache.
BLOCK = 16


class MatchRule(NamedTuple):
    """When one image counts as a copy of another.

    Crops of the `view` of one image are compared with the `other` view of the second. `crops`: how many of the 16 crops
    are hashed, the uncropped image first. `aspect`: largest factor between the aspect ratios, which square thumbnails
    do not show. `correlation`: smallest correlation between the pixels of the best crop and of the second image.
    """

    view: str
    other: str
    crops: int
    aspect: float
    correlation: float


# Cropping 5 % on both sides of one axis changes the aspect ratio by 1.11; the rest allows for rounding in small copies.
# Ink needs a higher correlation than whole pages: unrelated bare squares and grids differ by their margins alone.
RULES = (
    MatchRule("whole", "whole", len(SIDES) ** 2, 1.17, 0.85),
    MatchRule("ink", "ink", len(SIDES) ** 2, 1.17, 0.9),
    MatchRule("whole", "ink", 1, 1.1, 0.9),
    MatchRule("ink", "untitled", 1, 1.1, 0.9),
    MatchRule("ink", "uncaptioned", 1, 1.1, 0.9),
)


class Pictures(NamedTuple):
    """The I distinct images of one set: `digests`, and per view `aspects` (I, 4) and `thumbnails` (I, 4, 64, 64)
    uint8."""

    digests: list[bytes]
    aspects: np.ndarray
    thumbnails: np.ndarray


class Look(NamedTuple):
    """One view of K images, prepared for comparison: `aspects` (K,), `hashes` (K, 16) uint64 of the crops, `coarse`
    (K, 16 x 16) normalized pixels, `thumbnails` (K, 64, 64) uint8."""

    aspects: np.ndarray
    hashes: np.ndarray
    coarse: np.ndarray
    thumbnails: np.ndarray


class IndexedQuestion(NamedTuple):
    """The distinctive shingles of a question, and the rows that ask it."""

    shingles: frozenset[Shingle]
    rows: list[int]


@dataclass(frozen=True, order=True)
class Place:
    """The position of a row: its file as given, its index from 0, and its id."""

    file: str
    row: int
    id: str

    def __str__(self) -> str:
        return f"{self.row} of {self.file} ({self.id!r})"


@dataclass(frozen=True)
class Overlap:
    """A training row, an evaluation row, and all kinds of match between them."""

    train: Place
    evaluation: Place
    kinds: tuple[MatchKind, ...]


@dataclass(frozen=True)
class _Set:
    """The rows of several files: the place, words and image digests of each row, and the rows of each image."""

    places: list[Place]
    words: list[Words]
    images: list[frozenset[bytes]]
    pictures: Pictures
    rows_of: dict[bytes, list[int]]


def overlaps(train_files: Sequence[Path], eval_files: Sequence[Path], images: Images = "near") -> list[Overlap]:
    """Find the pairs of training and evaluation rows that share an image or a distinctive question.

    Args:
        train_files, eval_files: parquet files of `mmupt_data.row_schema`. Swapping the two only swaps the rows of each
            pair, and the order of files and rows does not matter.
        images: "exact" matches only images with the same pixels. Use it for sets such as procedural figures, whose
            images differ so little that "near" mistakes many for copies.

    Returns:
        One overlap per pair of rows, in the order of the files and rows.

    Raises:
        ValueError: a file lacks a column, or there are more than PAIRS_AT_MOST pairs.
    """
    train, evaluation = (_gather(files, near=images == "near") for files in (train_files, eval_files))
    kinds: dict[tuple[int, int], set[MatchKind]] = defaultdict(set)
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
    order: tuple[MatchKind, ...] = get_args(MatchKind)
    return [
        Overlap(train.places[left], evaluation.places[right], tuple(kind for kind in order if kind in found))
        for (left, right), found in sorted(kinds.items())
    ]


def _gather(files: Sequence[Path], near: bool) -> _Set:
    places: list[Place] = []
    asked: list[Words] = []
    images: list[frozenset[bytes]] = []
    known: dict[bytes, ImageFingerprint] = {}
    rows_of: dict[bytes, list[int]] = defaultdict(list)
    for file in dict.fromkeys(files):
        for row, found in enumerate(read_fingerprints(file, near)):
            digests = frozenset(image.digest for image in found.images)
            for digest in digests:
                rows_of[digest].append(len(places))
            for image in found.images:
                known.setdefault(image.digest, image)
            places.append(Place(str(file), row, found.id))
            asked.append(words(found.question))
            images.append(digests)
    return _Set(places, asked, images, pictures_of(known.values()), rows_of)


def pictures_of(found: Iterable[ImageFingerprint]) -> Pictures:
    """Stack the fingerprints of distinct images for comparison."""
    images = list(found)
    aspects = np.array([image.aspects for image in images], np.float32).reshape(-1, len(VIEWS))
    thumbnails = np.array([image.thumbnails for image in images], np.uint8)
    return Pictures(
        [image.digest for image in images],
        aspects,
        thumbnails.reshape(-1, len(VIEWS), THUMBNAIL_SIZE, THUMBNAIL_SIZE),
    )


def _same_images(train: _Set, evaluation: _Set, images: Images) -> Iterator[tuple[MatchKind, list[int], list[int]]]:
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
    """Yield index pairs of images of which one looks like an altered copy of the other; some pairs occur twice."""
    ones, others = ({view: look(pictures, view) for view in VIEWS} for pictures in (left, right))
    for rule in RULES:
        forth = copies(ones[rule.view], others[rule.other], rule)
        back = ((one, other) for other, one in copies(others[rule.view], ones[rule.other], rule))
        for one, other in itertools.chain(forth, back):
            if left.digests[one] != right.digests[other]:
                yield one, other


def look(pictures: Pictures, view: str) -> Look:
    """Prepare one view of all images for comparison."""
    index = VIEWS.index(view)
    thumbnails = np.ascontiguousarray(pictures.thumbnails[:, index])
    return Look(
        pictures.aspects[:, index],
        _in_blocks(hashes, thumbnails, np.zeros((0, len(SIDES) ** 2), np.uint64)),
        _in_blocks(_coarse, thumbnails, np.zeros((0, COARSE_SIZE**2), np.float32)),
        thumbnails,
    )


def copies(whole: Look, others: Look, rule: MatchRule) -> Iterator[tuple[int, int]]:
    """Yield index pairs whose second image looks like the first or a crop of it."""

    def compare(start: int) -> list[tuple[int, int]]:
        pairs = []
        distances = hash_distances(whole.hashes[start : start + BLOCK, : rule.crops], others.hashes[:, 0])
        for one, within in enumerate(distances <= HASH_RADIUS, start):
            near = np.flatnonzero(within)
            ratios = np.abs(np.log(others.aspects[near] / whole.aspects[one]))
            near = near[ratios <= np.log(rule.aspect)]
            if len(near):
                crops = _normalized(_resampled(whole.thumbnails[one], _resampling(SIDES, COARSE_SIZE)))
                near = near[(others.coarse[near] @ crops.T).max(axis=1) >= COARSE_CORRELATION]
            if len(near):
                near = near[correlations(whole.thumbnails[one], others.thumbnails[near]) >= rule.correlation]
            pairs += [(one, int(other)) for other in near]
        return pairs

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for pairs in pool.map(compare, range(0, len(whole.hashes), BLOCK)):
            yield from pairs


def hashes(thumbnails: np.ndarray) -> np.ndarray:
    """The perceptual hash of each crop of thumbnails (K, 64, 64): (K, 16) uint64, the uncropped image first.

    Like `imagehash.phash`, its bits say which of the 8 x 8 lowest frequencies exceed their median.
    """
    frequencies = np.arange(FREQUENCIES)[:, None] * (2 * np.arange(HASHED_SIZE) + 1)
    transform = np.cos(np.pi / (2 * HASHED_SIZE) * frequencies).astype(np.float32)
    low = _resampled(thumbnails, transform @ _resampling(SIDES, HASHED_SIZE))
    bits = np.packbits(low > np.median(low, axis=-1, keepdims=True), axis=-1)
    return np.ascontiguousarray(bits).view(np.uint64)[..., 0]


def hash_distances(crops: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The Hamming distance between each of `others` and the most similar crop of each image.

    Takes uint64 hashes (I, crops) and (K,); returns (I, K) uint8.
    """
    distances: np.ndarray = np.full((len(crops), len(others)), 64, np.uint8)
    for crop in crops.T:
        np.minimum(distances, np.bitwise_count(crop[:, None] ^ others), out=distances)
    return distances


def correlations(thumbnail: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The correlation of each of `others` (K, 64, 64) with the most similar crop of a thumbnail (64, 64): (K,)."""
    crops = _normalized(_resampled(thumbnail, _resampling(FINE_SIDES, FINE_SIZE)))
    return (_normalized(_resampled(others, _resampling(SIDES[:1], FINE_SIZE))[:, 0]) @ crops.T).max(axis=1)


def _coarse(thumbnails: np.ndarray) -> np.ndarray:
    return _normalized(_resampled(thumbnails, _resampling(SIDES[:1], COARSE_SIZE))[:, 0])


def _in_blocks(function: Callable[[np.ndarray], np.ndarray], thumbnails: np.ndarray, empty: np.ndarray) -> np.ndarray:
    """Apply a function to a few thumbnails at a time, because it needs them as floats."""
    blocks = (thumbnails[start : start + 256] for start in range(0, len(thumbnails), 256))
    return np.concatenate([empty, *map(function, blocks)])


@cache
def _resampling(sides: tuple[tuple[float, float], ...], size: int) -> np.ndarray:
    """Matrices (crops, size, 64) that average the pixels of each crop of 64 pixels in `size` equal parts."""
    pixel = np.arange(THUMBNAIL_SIZE)
    edges = np.stack([np.linspace(before, 1 - after, size + 1) for before, after in sides]) * THUMBNAIL_SIZE
    upper, lower = np.minimum(edges[:, 1:, None], pixel + 1), np.maximum(edges[:, :-1, None], pixel)
    shares = (upper - lower).clip(0)
    return (shares / shares.sum(axis=-1, keepdims=True)).astype(np.float32)


def _resampled(thumbnails: np.ndarray, crops: np.ndarray) -> np.ndarray:
    """Crop and shrink (..., 64, 64) to (..., crops x crops, size x size): every crop of rows with every crop of
    columns."""
    count, size, _ = crops.shape
    matrix = crops.reshape(count * size, THUMBNAIL_SIZE)
    views = matrix @ thumbnails.astype(np.float32) @ matrix.T
    views = np.moveaxis(views.reshape(*views.shape[:-2], count, size, count, size), -3, -2)
    return views.reshape(*views.shape[:-4], count * count, size * size)


def _normalized(pixels: np.ndarray) -> np.ndarray:
    """Scale to mean 0 and length 1, so that products are correlations. Images that vary by less than a grey level stay
    near 0, so an empty image resembles no other."""
    pixels = pixels - pixels.mean(axis=-1, keepdims=True)
    length = np.linalg.norm(pixels, axis=-1, keepdims=True)
    return pixels / np.maximum(length, np.sqrt(pixels.shape[-1]))


def _same_questions(train: _Set, evaluation: _Set) -> Iterator[tuple[MatchKind, list[int], list[int]]]:
    """Yield matching pairs of distinctive questions, each as the rows that ask it."""
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


def _distinctive(rows: _Set, sets: Sequence[_Set], share: float) -> dict[Words, IndexedQuestion]:
    """The questions that count as evidence, by their words, without shingles that are frequent in one of the sets."""
    frequent = set().union(*(_frequent_shingles(each, share) for each in sets))
    asking: dict[Words, list[int]] = defaultdict(list)
    for row, question in enumerate(rows.words):
        asking[question].append(row)
    found = {
        question: IndexedQuestion(shingles(question) - frequent, of)
        for question, of in asking.items()
        if len({rows.images[row] for row in of}) <= ASKED_AT_MOST
    }
    return {question: asked for question, asked in found.items() if len(asked.shingles) >= DISTINCTIVE_SHINGLES}


def _frequent_shingles(rows: _Set, share: float) -> set[Shingle]:
    """Shingles in more than this share of the set's distinct questions, and in more than ASKED_AT_MOST of them."""
    different = {(question, images) for question, images in zip(rows.words, rows.images, strict=True)}
    having: dict[Shingle, set[object]] = defaultdict(set)
    for question, images in different:
        for shingle in shingles(question):
            # Without images, questions differ if their texts differ.
            having[shingle].add(images or question)
    at_most = max(ASKED_AT_MOST, share * len(different))
    return {shingle for shingle, found in having.items() if len(found) > at_most}


def _numbers_fit(one: Words, other: Words) -> bool:
    """Whether one question has all numbers of the other; questions with other numbers are different questions."""
    first, second = (Counter(word for word in question if word[0].isdigit()) for question in (one, other))
    return first <= second or second <= first
