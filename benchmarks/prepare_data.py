"""Cost of preparing a large data set: images per second and peak memory, ours against a plain `datasets.map`.

    .venv/bin/python benchmarks/prepare_data.py [--rows 20000] [--side 512]

Writes a source data set in the hub's layout (distinct JPEG images in parquet files), then prepares it twice, each time
in a new process without a cache:

    ours           `mmupt_data.hub`: all checks, duplicates, both files, the manifest
    datasets.map   the usual script: `load_dataset`, `.map` with the same row checks in as many processes as ours has
                   threads, `.filter`, `.to_parquet`

Memory is the peak PSS of all processes of a command together (each shared page is split among the processes that share
it), sampled ten times per second. Prints a Markdown table with the ratio.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil

ROWS_PER_FILE = 2_000


def write_source(folder: Path, rows: int, side: int) -> None:
    """Write a training set with the columns images, problem and answer."""
    import numpy
    from datasets import Dataset, Features, List, Value
    from datasets import Image as ImageFeature
    from PIL import Image

    features = Features({"images": List(ImageFeature()), "problem": Value("string"), "answer": Value("string")})
    folder.mkdir(parents=True, exist_ok=True)
    files = -(-rows // ROWS_PER_FILE)
    for file in range(files):
        records = []
        for index in range(file * ROWS_PER_FILE, min(rows, (file + 1) * ROWS_PER_FILE)):
            coarse = numpy.random.default_rng(index).integers(0, 256, (16, 16, 3), dtype=numpy.uint8)
            buffer = io.BytesIO()
            Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=95)
            image = {"bytes": buffer.getvalue(), "path": None}
            records.append({"images": [image], "problem": f"<image>What is shown in {index}?", "answer": str(index)})
        name = f"train-{file:05d}-of-{files:05d}.parquet"
        Dataset.from_list(records, features=features).to_parquet(folder / name, batch_size=100)


def ours(source: Path, target: Path, workers: int) -> None:
    """Prepare with `mmupt_data.hub`."""
    from mmupt.datasets import data_set

    data_set("mmr1").prepare(target, str(source), workers=workers)


def plain(source: Path, target: Path, workers: int) -> None:
    """Prepare with `datasets.map`."""
    from datasets import Image, List, load_dataset

    from mmupt_data.row_problems import problems_of
    from mmupt_data.row_schema import Row

    def check(record: dict, index: int) -> dict:
        images = tuple(image["bytes"] for image in record["images"])
        row = Row(f"row-{index}", "plain", record["problem"], images, "free_form", record["answer"])
        return {**row.without_answer(), "bad": bool(problems_of(row))}

    rows = load_dataset(str(source), split="train").cast_column("images", List(Image(decode=False)))
    rows = rows.map(check, with_indices=True, num_proc=workers, remove_columns=["problem", "answer"])
    target.mkdir(parents=True, exist_ok=True)
    rows.filter(lambda bad: not bad, input_columns="bad").to_parquet(target / "train.parquet")


def peak_memory(process: subprocess.Popen) -> float:
    """Wait for a process to end and return the peak PSS of it and its descendants together, in GiB."""
    peak = 0
    root = psutil.Process(process.pid)
    while process.poll() is None:
        total = 0
        with suppress(psutil.Error):
            for member in [root, *root.children(recursive=True)]:
                with suppress(psutil.Error):
                    total += member.memory_full_info().pss
        peak = max(peak, total)
        time.sleep(0.1)
    return peak / 2**30


def main() -> None:
    """Write the source, measure both and print the table."""
    parser = argparse.ArgumentParser(description="Speed and memory of preparing data, against `datasets.map`.")
    parser.add_argument("--rows", type=int, default=20_000, help="rows of the source, one image each (%(default)s)")
    parser.add_argument("--side", type=int, default=512, help="width and height of an image in px (%(default)s)")
    parser.add_argument("--run", choices=("ours", "plain", "source"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    workers = os.cpu_count() or 1
    if arguments.run:
        source, target = arguments.folder / "source", arguments.folder / arguments.run
        if arguments.run == "source":
            write_source(source, arguments.rows, arguments.side)
        else:
            (ours if arguments.run == "ours" else plain)(source, target, workers)
        return
    with tempfile.TemporaryDirectory() as folder:
        results = {}
        for run in ("source", "ours", "plain"):
            environment = {**os.environ, "HF_DATASETS_CACHE": f"{folder}/cache-{run}", "HF_HUB_OFFLINE": "1"}
            command = [sys.executable, __file__, "--run", run, "--folder", folder]
            command += ["--rows", str(arguments.rows), "--side", str(arguments.side)]
            start = time.perf_counter()
            with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as process:
                memory = peak_memory(process)
            if process.returncode:
                sys.exit(f"error: the run {run!r} ended with status {process.returncode}; its errors are above")
            results[run] = (time.perf_counter() - start, memory)
        size = sum(file.stat().st_size for file in (Path(folder) / "source").iterdir()) / 2**30
    print(f"\n{arguments.rows} images of {arguments.side} x {arguments.side} px, {size:.2f} GiB, {workers} cores\n")
    print("| | seconds | images per second | peak memory, GiB |\n|---|---|---|---|")
    for name, run in (("ours", "ours"), ("datasets.map", "plain")):
        seconds, memory = results[run]
        print(f"| {name} | {seconds:.0f} | {arguments.rows / seconds:.0f} | {memory:.2f} |")
    print(f"\nratio of images per second: {results['plain'][0] / results['ours'][0]:.2f}")
    print(json.dumps({name: {"seconds": s, "peak_gib": m} for name, (s, m) in results.items()}))


if __name__ == "__main__":
    main()
