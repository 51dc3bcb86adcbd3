"""What `mmupt_data.leakage` finds of altered copies, what it takes for copies wrongly, and how long it takes.

    .venv/bin/python benchmarks/leakage_search.py [FOLDER ...] [--copies 200] [--unrelated 1000] [--rows 4000] [--list]

Prints Markdown tables. Each FOLDER is a set of images, read with those in its subfolders. All images of each set are
compared with those of every other: what is found is an alarm, or a copy that the sets share, and `--list` names the
files. Then, of each set and kind of change, so many images are altered and looked for among their originals.

Without a folder, drawings and photographs are made up (`benchmarks/random_groups.py`), and there are more tables:
questions; what the thresholds are not made for, the same drawing with another number and the figures of
`mmupt_data.figure_task`, which differ by one unit; and the time for drawings, which are slower to compare than
photographs. CPU time is that of all threads.
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

# Seeds of the one and of the other side start here. The constants of `mmupt_data.leakage` were chosen on the seeds
# before.
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


def read_sets(folders: Sequence[Path]) -> dict[str, dict[Path, ImageFingerprint]]:
    """The different images of each folder, by their files."""
    sets = {}
    for folder in folders:
        files = [file for file in sorted(folder.rglob("*")) if file.suffix.lower() in suffixes()]
        found = {file: image_fingerprint(file.read_bytes()) for file in files}
        sets[folder.name] = {file: found[file] for file in {each.digest: file for file, each in found.items()}.values()}
    return sets


def print_copies(sets: Mapping[str, Sequence[Image.Image]]) -> None:
    """How many of the altered copies are found, by kind of change and by set."""
    print(f"| change | {' | '.join(f'{name}, of {len(images)}' for name, images in sets.items())} |")
    print(f"|---|{'---|' * len(sets)}")
    originals = {
        name: pictures_of(image_fingerprint(encode(image, "BMP")) for image in images) for name, images in sets.items()
    }
    for change, alter in (CHANGES | MISSED).items():
        found = []
        for name, images in sets.items():
            altered = pictures_of(image_fingerprint(encode(alter(image), "BMP")) for image in images)
            pairs = set(near_images(originals[name], altered))
            same = zip(originals[name].digests, altered.digests, strict=True)
            found.append(sum((place, place) in pairs or one == other for place, (one, other) in enumerate(same)))
        print(f"| {change} | {' | '.join(map(str, found))} |", flush=True)
    print()


def print_between(sets: Mapping[str, Mapping[Path, ImageFingerprint]], listed: bool) -> None:
    """How many pairs of images of different sets are taken for copies."""
    print("| sets | pairs | found |\n|---|---|---|")
    total = alarms = 0
    names: list[str] = []
    looks = {name: pictures_of(found.values()) for name, found in sets.items()}
    for one, other in itertools.combinations(sets, 2):
        count = len(sets[one]) * len(sets[other])
        same = set(looks[one].digests) & set(looks[other].digests)
        found = set(near_images(looks[one], looks[other]))
        files = list(sets[one]), list(sets[other])
        names += [f"{files[0][left]} {files[1][right]}" for left, right in sorted(found)]
        total, alarms = total + count, alarms + len(found)
        both = f"{one} {len(sets[one]):,}, {other} {len(sets[other]):,}"
        print(f"| {both} | {count:,} | {len(found)} near, {len(same)} exact |", flush=True)
    print(f"| all | {total:,} | {alarms} near, {1e6 * alarms / total:.1f} per million |\n", flush=True)
    if listed:
        print("\n".join(names))


def print_questions(folder: Path, count: int) -> None:
    """How many questions in another case, spacing and punctuation are found."""
    blank, other = encode(Image.new("RGB", (64, 64), "white")), encode(drawing(0))
    train = write(folder / "asked", "train", [blank] * count, long_question)
    test = write(folder / "reworded", "test", [other] * count, lambda row: reworded(long_question(row)))
    pairs = {(each.train.row, each.evaluation.row) for each in overlaps(train, test)}
    print(f"Questions, other case, spacing and punctuation: {sum((i, i) in pairs for i in range(count))} of {count}\n")


def print_unrelated(folder: Path, count: int) -> None:
    """How many pairs are taken for copies, by kind of image; the other sets have too few different images for more."""
    print("| rows of each side | pairs | alarms, near | alarms, exact |\n|---|---|---|---|")
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
    parser.add_argument("folders", type=Path, nargs="*", help="folders of images, one set each")
    parser.add_argument("--copies", type=int, default=200, help="copies of each kind of change, in each set")
    parser.add_argument("--unrelated", type=int, default=1000, help="made-up rows of each side with nothing in common")
    parser.add_argument("--rows", type=int, default=4000, help="made-up rows of each side whose comparison is timed")
    parser.add_argument("--list", action="store_true", help="name the files of all pairs found between sets")
    arguments = parser.parse_args()
    if arguments.folders:
        sets = read_sets(arguments.folders)
        print_between(sets, arguments.list)
        few = {name: Random(0).sample(list(found), min(arguments.copies, len(found))) for name, found in sets.items()}
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
