"""What `data.leakage` finds of planted copies, what it takes for copies wrongly, and how long it takes.

    .venv/bin/python benchmarks/leakage.py [--copies 300] [--unrelated 1000] [--rows 4000]

Prints three Markdown tables. Drawings and photographs are made up (`benchmarks/made_up.py`). Copies: of each kind of
change, so many altered images are looked for among the originals. Unrelated: rows of other seeds on both sides, all
pairs; besides, what the thresholds are not made for: the same drawing with another number, and the figures of
`data.figures`, which differ by one unit. Time: of drawings, which are the slower ones to compare;
CPU time is that of all threads. A quarter of an hour.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.made_up import (
    CHANGES,
    MISSED,
    drawing,
    encode,
    long_question,
    photo,
    question,
    relabelled,
    reworded,
)
from data import figures
from data.fingerprints import read_fingerprints
from data.leakage import HASH_RADIUS, STAGES, Images, correlations, hash_distances, overlaps, uncropped
from data.schema import Row, prompts_path
from data.writing import write_dataset

# Seeds of the one and of the other side start here. The constants of `data.leakage` were chosen on the seeds before.
FIRST, OTHERS = 10_000, 1_000_000
# Of drawings and photographs: what makes them, and the format of their files.
KINDS: dict[str, tuple[Callable[[int], Image.Image], str]] = {
    "drawings": (drawing, "PNG"),
    "photographs": (photo, "JPEG"),
}
MODES: tuple[Images, ...] = ("near", "exact")


def write(folder: Path, side: str, images: Iterable[bytes], questions: Callable[[int], str]) -> list[Path]:
    """A file of rows with one image each."""
    rows = (
        Row(f"{side}-{index}", "made up", f"<image>{questions(index)}", (image,), "any", "0")
        for index, image in enumerate(images)
    )
    write_dataset(folder, {side: rows}, {"side": side})
    return [prompts_path(folder, side)]


def asked_of_all(_: int) -> str:
    """A question that is no evidence."""
    return "Find x."


def encoded(images: Iterable[Image.Image], format: str) -> Iterator[bytes]:
    """Their files."""
    return (encode(image, format) for image in images)


def likeness(train: list[Path], test: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Distances of hashes and, in the last stage, correlations of all images with all others."""
    left, right = read_fingerprints(train[0]), read_fingerprints(test[0])
    distances = np.minimum(hash_distances(left.hashes, right.hashes), hash_distances(right.hashes, left.hashes).T)
    alike = [
        np.stack([correlations(each, pixels, STAGES[-1]) for each in whole.thumbnails])
        for whole, pixels in (
            (left, uncropped(right.thumbnails, STAGES[-1])),
            (right, uncropped(left.thumbnails, STAGES[-1])),
        )
    ]
    return distances, np.maximum(alike[0], alike[1].T)


def print_copies(folder: Path, count: int) -> None:
    """How many of so many altered copies are found, by kind of change and of image."""
    print("| change |" + "".join(f" {name} found | largest distance | least correlation |" for name in KINDS))
    print("|---|---|---|---|---|---|---|")
    images = {name: [make(seed) for seed in range(FIRST, FIRST + count)] for name, (make, _) in KINDS.items()}
    originals = {
        name: write(folder / name, "train", encoded(images[name], format), asked_of_all)
        for name, (_, format) in KINDS.items()
    }
    for index, (change, alter) in enumerate((CHANGES | MISSED).items()):
        found = []
        for name, (_, format) in KINDS.items():
            copies = write(folder / f"{name}-{index}", "test", encoded(map(alter, images[name]), format), asked_of_all)
            pairs = {(each.train.row, each.evaluation.row) for each in overlaps(originals[name], copies)}
            found.append(f"{sum((row, row) in pairs for row in range(count))} of {count}")
            distances, alike = likeness(originals[name], copies)
            found += [f"{distances.diagonal().max()}", f"{alike.diagonal().min():.2f}"]
        print(f"| {change} | {' | '.join(found)} |", flush=True)
    blank = encode(Image.new("RGB", (64, 64), "white"))
    train = write(folder / "asked", "train", [blank] * count, long_question)
    test = write(
        folder / "reworded", "test", encoded(images["drawings"], "PNG"), lambda row: reworded(long_question(row))
    )
    pairs = {(each.train.row, each.evaluation.row) for each in overlaps(train, test)}
    print(
        f"\nQuestions, other case, spacing and punctuation: {sum((i, i) in pairs for i in range(count))} of {count}\n"
    )


def print_unrelated(folder: Path, count: int) -> None:
    """How many pairs are taken for copies, by kind of image; the other sets have too few different images for more."""
    print("| rows of each side | pairs | within the hash's radius | correlation | alarms, near | alarms, exact |")
    print("|---|---|---|---|---|---|")
    few = min(count, 500)
    sets: dict[str, tuple[int, Iterable[bytes], Iterable[bytes]]] = {
        name: (
            count,
            encoded(map(make, range(FIRST, FIRST + count)), format),
            encoded(map(make, range(OTHERS, OTHERS + count)), format),
        )
        for name, (make, format) in KINDS.items()
    }
    sets["the same drawing, one number more"] = (
        few,
        encoded(map(drawing, range(FIRST, FIRST + few)), "PNG"),
        encoded(map(relabelled, range(FIRST, FIRST + few)), "PNG"),
    )
    train, test = (
        [figures.encode_png(figures.draw(figure)) for figure in figures.sample_figures(split, few, 0)]
        for split in ("train", "test")
    )
    sets["figures of `data.figures`"] = (few, train, test)
    for index, (name, (rows, left, right)) in enumerate(sets.items()):
        train_file = write(folder / f"unrelated-{index}", "train", left, question)
        test_file = write(folder / f"unrelated-{index}", "test", right, lambda row: question(row + OTHERS))
        alarms = [len(overlaps(train_file, test_file, images)) for images in MODES]
        distances, alike = likeness(train_file, test_file)
        within = distances <= HASH_RADIUS
        share, highest = f"{within.mean():.2%}", f"{alike[within].max(initial=0):.2f}"
        print(
            f"| {rows:,} {name} | {rows * rows:,} | {share} | {highest} | {alarms[0]:,} | {alarms[1]:,} |", flush=True
        )
    print()


def print_time(folder: Path, count: int) -> None:
    """Seconds for two sets."""
    print("| what | wall s | CPU s | rows a second |\n|---|---|---|---|")
    train = write(folder / "time", "train", encoded(map(drawing, range(FIRST, FIRST + count)), "PNG"), question)
    others = range(OTHERS, OTHERS + count)
    test = write(folder / "time", "test", encoded(map(drawing, others), "PNG"), lambda row: question(row + OTHERS))
    for what in ("fingerprints and comparison", "comparison, fingerprints kept"):
        wall, cpu = time.perf_counter(), time.process_time()
        overlaps(train, test)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        print(
            f"| {what}, {count:,} and {count:,} rows | {wall:.1f} | {cpu:.1f} | {2 * count / wall:,.0f} |", flush=True
        )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--copies", type=int, default=300, help="copies of each kind of change")
    parser.add_argument("--unrelated", type=int, default=1000, help="rows of each side that have nothing in common")
    parser.add_argument("--rows", type=int, default=4000, help="rows of each side whose comparison is timed")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print_copies(Path(folder), arguments.copies)
        print_unrelated(Path(folder), arguments.unrelated)
        print_time(Path(folder), arguments.rows)


if __name__ == "__main__":
    main()
