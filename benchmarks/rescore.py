r"""Time to score 10,000 saved responses on one core, against a naive grader.

    .venv/bin/python benchmarks/rescore.py [--questions 1000] [--repeats 5] [--seed 0]

Generates a benchmark like MathVista testmini (1,000 questions: options, integers, decimals, texts) and 10 responses per
question, greedy and sampled, of about 1,500 characters with a boxed answer at the end; one in twenty has no answer, one
in five is LaTeX. Each repeat runs three new processes, one after the other:

    command  `mmupt score FILE`, as a user runs it: start, imports, reading, scoring, writing
    scoring  `score_file` alone, after the imports
    peer     mathruler's `grade_answer(extract_boxed_content(...))` per response, after the imports, from a list in
             memory: it ignores options, writes nothing, and gives one verdict where `score_file` gives two and a vote

Prints medians and ranges in seconds. All processes are pinned to one core. Takes a minute or two.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from io import BytesIO
from pathlib import Path

from PIL import Image

from mmupt.evaluation.response_files import Mode, Response, write_responses
from mmupt_data.row_schema import Row
from mmupt_data.writer import write_dataset

SAMPLES = 9
CHARACTERS = 1_500
_split = str.split
WORDS = [
    *_split("the angle of triangle is therefore equal to sum we see in figure that line has length so first compute"),
    *_split("area and then subtract both sides hence which gives radius circle chart bar shows"),
    *(r"$\frac{1}{2}ab$", "$x^2+3x$", r"$\angle ABC$", r"$\sqrt{3}$"),
]
# LaTeX forms of an integer or a decimal.
FORMS = (r"\text{{{}}}", r"${}$", r"{}^\circ", r"x = {}", r"{}\text{{ cm}}")


def made_up_row(number: int, generator: random.Random, image: bytes) -> Row:
    """Draw a question of one of four kinds, with roughly their shares in MathVista."""
    choices: tuple[str, ...] | None = None
    answer_type, precision = "text", None
    kind = generator.choices(("choice", "integer", "float", "text"), (54, 36, 8, 2))[0]
    if kind == "choice":
        choices = tuple(f"{generator.choice(('blue', 'red', 'the'))} {generator.randrange(99)} cm" for _ in range(4))
        answer = generator.choice(choices)
    elif kind == "integer":
        answer, answer_type = str(generator.randrange(1_000)), "integer"
    elif kind == "float":
        answer, answer_type, precision = f"{generator.uniform(0, 9):.1f}", "float", 1.0
    else:
        answer = generator.choice(("Yes", "No", "[1, 2, 3]"))
    labels = {"category": "math-targeted-vqa", "grade": "high school", "skills": ["geometry reasoning"]}
    return Row(
        id=str(number),
        data_source="mathvista",
        question=f"<image>What is asked in figure {number}?",
        images=(image,),
        question_type="multi_choice" if choices else "free_form",
        answer=answer,
        choices=choices,
        metadata={"query": "", "unit": None, "precision": precision, "answer_type": answer_type, "metadata": labels},
    )


def made_up_response(row: Row, generator: random.Random) -> str:
    """Draw random words as reasoning and a boxed answer, which is right in about half of the responses."""
    words = []
    left = generator.gauss(CHARACTERS, CHARACTERS / 4)
    while left > 0:
        words.append(generator.choice(WORDS))
        left -= len(words[-1]) + 1
    reasoning = " ".join(words)
    if generator.random() < 0.05:
        return reasoning
    assert row.answer is not None
    if row.choices:
        answer = row.answer if generator.random() < 0.5 else generator.choice(row.choices)
        if generator.random() < 0.7:
            answer = chr(ord("A") + row.choices.index(answer))
    else:
        answer = row.answer if generator.random() < 0.5 else str(generator.randrange(1_000))
        if generator.random() < 0.4:
            answer = generator.choice(FORMS).format(answer)
        elif generator.random() < 0.1:
            answer = rf"\frac{{{generator.randrange(1, 99)}\sqrt{{{generator.randrange(2, 30)}}}}}{{2}}"
    return rf"{reasoning} The answer is \boxed{{{answer}}}."


def make_up(folder: Path, questions: int, seed: int) -> Path:
    """Write the benchmark and the responses; returns the response file."""
    generator = random.Random(seed)
    rows = []
    for number in range(questions):
        encoded = BytesIO()
        Image.frombytes("RGB", (64, 64), generator.randbytes(64 * 64 * 3)).save(encoded, "PNG")
        rows.append(made_up_row(number, generator, encoded.getvalue()))
    write_dataset(folder / "data", {"testmini": rows}, {"seed": seed})
    modes: list[tuple[Mode, int]] = [("greedy", 0), *(("sample", sample) for sample in range(SAMPLES))]
    responses = [
        Response(row.id, mode, sample, made_up_response(row, generator), CHARACTERS // 3)
        for row in rows
        for mode, sample in modes
    ]
    file = folder / "mathvista.jsonl"
    write_responses(file, responses, {"data": {str(folder / "data" / "testmini.parquet"): None}})
    return file


def score_alone(file: Path) -> float:
    """Time `score_file`, in seconds."""
    from mmupt.evaluation.score_files import score_file

    start = time.perf_counter()
    score_file(file)
    return time.perf_counter() - start


def grade_naively(file: Path) -> float:
    """Time mathruler's grader, in seconds."""
    from mathruler.grader import extract_boxed_content, grade_answer

    from mmupt.benchmarks import read_questions
    from mmupt.evaluation.response_files import read_whole

    questions = read_questions(file.parent / "data" / "testmini.parquet")
    pairs = [(response.response, questions[response.id].truth) for response in read_whole(file)]
    start = time.perf_counter()
    for response, truth in pairs:
        grade_answer(extract_boxed_content(response), truth)
    return time.perf_counter() - start


ALONE = {"scoring": score_alone, "peer": grade_naively}


def run(what: str, file: Path) -> float:
    """Time `command`, `scoring` or `peer` in a new process, in seconds."""
    if what == "command":
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "mmupt", "score", str(file)], check=True, capture_output=True)
        return time.perf_counter() - start
    command = [sys.executable, __file__, "--alone", what, str(file)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    """Measure all three and print their times; with `--alone`, time one in this process."""
    parser = argparse.ArgumentParser(description="Time the scoring of saved responses, against a naive grader.")
    parser.add_argument("--questions", type=int, default=1_000, help="with 10 responses each (%(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each process (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="(%(default)s)")
    parser.add_argument("--alone", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.alone:
        print(ALONE[arguments.alone[0]](Path(arguments.alone[1])))
        return
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as folder:
        file = make_up(Path(folder), arguments.questions, arguments.seed)
        lengths = [len(json.loads(line)["response"]) for line in file.open()]
        print(f"{len(lengths):,} responses of {statistics.mean(lengths):,.0f} characters, one core")
        seconds: dict[str, list[float]] = {what: [] for what in ("command", *ALONE)}
        for _ in range(arguments.repeats):
            for what, times in seconds.items():
                times.append(run(what, file))
    for what, times in seconds.items():
        print(f"{what}: {statistics.median(times):.1f} s ({min(times):.1f} to {max(times):.1f})")
    ratio = statistics.median(seconds["scoring"]) / statistics.median(seconds["peer"])
    print(f"scoring / peer: {ratio:.2f}, ratio of the medians")


if __name__ == "__main__":
    main()
