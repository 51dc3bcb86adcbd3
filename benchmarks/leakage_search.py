"""Recall, false alarms and time of the leakage search (`mmupt_data.leakage`).

    .venv/bin/python benchmarks/leakage_search.py [FOLDER ...] [--copies 200] [--unrelated 1000] [--rows 4000] [--list]

Prints Markdown tables. Each FOLDER is a set of images, including its subfolders. All images of each set are compared
with all images of every other set: a match is a false alarm or a copy that the sets share (`--list` names the files).
Then `--copies` images per set are altered by each kind of change and searched among their originals.

Without a folder, drawings and photographs are generated (`benchmarks/random_groups.py`), with more tables: questions;
pairs that the thresholds cannot tell apart (a drawing with one more number, figures of `mmupt_data.figure_task` that
differ by one unit); and the time for drawings, which are slower to compare than photographs. CPU time counts all
threads.
"""

import argparse
import itertools
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from random import Random

from PIL import Image

from benchmarks.random_groups import (
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
from mmupt_data import figure_task
from mmupt_data.fingerprints import ImageFingerprint, image_fingerprint
from mmupt_data.leakage import Images, near_images, overlaps, pictures_of
from mmupt_data.row_schema import Row, prompts_path
from mmupt_data.writer import write_dataset
from verl_ext.images import decode, suffixes

# First seeds of the two sides. The constants of `mmupt_data.leakage` were chosen on seeds below them.
FIRST, OTHERS = 10_000, 1_000_000
# Generator and file format of each kind of image.
KINDS: dict[str, tuple[Callable[[int], Image.Image], str]] = {
    "drawings": (drawing, "PNG"),
    "photographs": (photo, "JPEG"),
}
MODES: tuple[Images, ...] = ("near", "exact")


def write(folder: Path, side: str, images: Iterable[bytes], questions: Callable[[int], str]) -> list[Path]:
    """Write a data set of rows with one image each; returns its file in a list."""
    rows = (
        Row(f"{side}-{index}", "made up", f"<image>{questions(index)}", (image,), "any", "0")
        for index, image in enumerate(images)
    )
    write_dataset(folder, {side: rows}, {"side": side})
    return [prompts_path(folder, side)]


def encoded(images: Iterable[Image.Image], format: str) -> Iterator[bytes]:
    """Encode images as files of a format."""
    return (encode(image, format) for image in images)


def read_sets(folders: Sequence[Path]) -> dict[str, dict[Path, ImageFingerprint]]:
    """The fingerprints of each folder's distinct images, by file."""
    sets = {}
    for folder in folders:
        files = [file for file in sorted(folder.rglob("*")) if file.suffix.lower() in suffixes()]
        prints = {file: image_fingerprint(file.read_bytes()) for file in files}
        distinct = {fingerprint.digest: file for file, fingerprint in prints.items()}.values()
        sets[folder.name] = {file: prints[file] for file in distinct}
    return sets


def print_copies(sets: Mapping[str, Sequence[Image.Image]]) -> None:
    """Print how many altered copies are found, by kind of change and set."""
    print(f"| change | {' | '.join(f'{name}, of {len(images)}' for name, images in sets.items())} |")
    print(f"|---|{'---|' * len(sets)}")
    originals = {
        name: pictures_of(image_fingerprint(encode(image, "BMP")) for image in images) for name, images in sets.items()
    }
    for change, alter in (CHANGES | MISSED).items():
        counts = []
        for name, images in sets.items():
            altered = pictures_of(image_fingerprint(encode(alter(image), "BMP")) for image in images)
            pairs = set(near_images(originals[name], altered))
            digests = zip(originals[name].digests, altered.digests, strict=True)
            counts.append(sum((index, index) in pairs or old == new for index, (old, new) in enumerate(digests)))
        print(f"| {change} | {' | '.join(map(str, counts))} |", flush=True)
    print()


def print_between(sets: Mapping[str, Mapping[Path, ImageFingerprint]], listed: bool) -> None:
    """Print how many pairs of images of different sets count as copies; list the files of the pairs if `listed`."""
    print("| sets | pairs | found |\n|---|---|---|")
    total = alarms = 0
    names: list[str] = []
    pictures = {name: pictures_of(prints.values()) for name, prints in sets.items()}
    for left, right in itertools.combinations(sets, 2):
        count = len(sets[left]) * len(sets[right])
        exact = set(pictures[left].digests) & set(pictures[right].digests)
        near = set(near_images(pictures[left], pictures[right]))
        left_files, right_files = list(sets[left]), list(sets[right])
        names += [f"{left_files[i]} {right_files[j]}" for i, j in sorted(near)]
        total, alarms = total + count, alarms + len(near)
        both = f"{left} {len(sets[left]):,}, {right} {len(sets[right]):,}"
        print(f"| {both} | {count:,} | {len(near)} near, {len(exact)} exact |", flush=True)
    print(f"| all | {total:,} | {alarms} near, {1e6 * alarms / total:.1f} per million |\n", flush=True)
    if listed:
        print("\n".join(names))


def print_questions(folder: Path, count: int) -> None:
    """Print how many questions are found after a change of case, spacing and punctuation."""
    blank, other = encode(Image.new("RGB", (64, 64), "white")), encode(drawing(0))
    train = write(folder / "original", "train", [blank] * count, long_question)
    test = write(folder / "reworded", "test", [other] * count, lambda row: reworded(long_question(row)))
    pairs = {(overlap.train.row, overlap.evaluation.row) for overlap in overlaps(train, test)}
    print(f"Questions, other case, spacing and punctuation: {sum((i, i) in pairs for i in range(count))} of {count}\n")


def print_unrelated(folder: Path, count: int) -> None:
    """Print how many pairs of unrelated images count as copies, by kind of image.

    Sets other than drawings and photographs have at most 500 images: they lack distinct images for more.
    """
    print("| rows per side | pairs | alarms, near | alarms, exact |\n|---|---|---|---|")
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
        [
            figure_task.encode_png(figure_task.draw_figure(figure))
            for figure in figure_task.sample_figures(split, few, 0)
        ]
        for split in ("train", "test")
    )
    sets["figures of `mmupt_data.figure_task`"] = (few, train, test)
    for index, (name, (rows, left, right)) in enumerate(sets.items()):
        train_file = write(folder / f"unrelated-{index}", "train", left, question)
        test_file = write(folder / f"unrelated-{index}", "test", right, lambda row: question(row + OTHERS))
        alarms = [len(overlaps(train_file, test_file, images)) for images in MODES]
        print(f"| {rows:,} {name} | {rows * rows:,} | {alarms[0]:,} | {alarms[1]:,} |", flush=True)
    print()


def print_time(folder: Path, count: int) -> None:
    """Print the time for two sets of drawings, first without and then with cached fingerprints."""
    print("| what | wall s | CPU s | rows per second |\n|---|---|---|---|")
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
    """Print all tables."""
    parser = argparse.ArgumentParser(description="Recall, false alarms and time of the leakage search.")
    parser.add_argument("folders", type=Path, nargs="*", help="folders of images, a set per folder")
    parser.add_argument("--copies", type=int, default=200, help="altered copies per change and set (%(default)s)")
    parser.add_argument("--unrelated", type=int, default=1000, help="unrelated generated rows per side (%(default)s)")
    parser.add_argument("--rows", type=int, default=4000, help="generated rows per side to time (%(default)s)")
    parser.add_argument("--list", action="store_true", help="list the files of all pairs found between sets")
    arguments = parser.parse_args()
    if arguments.folders:
        sets = read_sets(arguments.folders)
        print_between(sets, arguments.list)
        few = {name: Random(0).sample(list(files), min(arguments.copies, len(files))) for name, files in sets.items()}
        print_copies({name: [decode(file.read_bytes()).image for file in files] for name, files in few.items()})
        return
    seeds = range(FIRST, FIRST + arguments.copies)
    print_copies({name: [make(seed) for seed in seeds] for name, (make, _) in KINDS.items()})
    with tempfile.TemporaryDirectory() as folder:
        print_questions(Path(folder), arguments.copies)
        print_unrelated(Path(folder), arguments.unrelated)
        print_time(Path(folder), arguments.rows)


if __name__ == "__main__":
    main()
