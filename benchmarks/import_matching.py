r"""How many rows of an evaluation log without ids are matched to the published questions of a benchmark.

    .venv/bin/python benchmarks/import_matching.py REPOSITORIES

REPOSITORIES is a folder with clones of lupantech/MathVista, mathllm/MATH-V, We-Math/We-Math and ZrrSkywalker/MathVerse.
MathVerse's repository has only its text-only version. Every question is logged in the prompt layouts of lmms-eval 0.7.3
with its answer and row number, in the order of the data and shuffled; no response is generated. Prints how many rows
are matched, wrongly matched, and refused, by problem. Takes 15 seconds.
"""

import argparse
import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from mmupt.benchmarks import Question, mathverse, mathvision, mathvista, wemath
from mmupt.evaluation.question_matching import Evidence, QuestionIndex
from mmupt_data.hub import Content

Row = dict[str, Any]
IMAGE = {"bytes": b"image", "path": None}


def mathvista_rows(repositories: Path) -> Iterator[tuple[Row, Content]]:
    queries = json.loads((repositories / "MathVista/data/query.json").read_text())
    for pid, row in json.loads((repositories / "MathVista/data/testmini.json").read_text()).items():
        row = {**row, "pid": pid, "query": queries[pid], "decoded_image": IMAGE}
        yield row, mathvista.read(row)


def mathvision_rows(repositories: Path) -> Iterator[tuple[Row, Content]]:
    read = mathvision.layout("decoded_image").read
    for line in (repositories / "MATH-V/data/test.jsonl").read_text().splitlines():
        row = {**json.loads(line), "decoded_image": IMAGE}
        yield row, read(row)


def wemath_rows(repositories: Path) -> Iterator[tuple[Row, Content]]:
    for row in json.loads((repositories / "We-Math/data/testmini.json").read_text()):
        yield row, wemath.read({**row, "image_path": IMAGE})


def mathverse_rows(repositories: Path) -> Iterator[tuple[Row, Content]]:
    for row in json.loads((repositories / "MathVerse/data/testmini_text_only.json").read_text()):
        yield row, mathverse.read({**row, "question_for_eval": row["question"], "image": IMAGE})


def prompts(name: str, row: Row) -> Iterator[str]:
    """Yield the prompt of a question in each layout of lmms-eval 0.7.3 (`doc_to_text` of its tasks)."""
    options = list(zip(ascii_uppercase, row.get("choices") or row.get("options") or (), strict=False))
    lettered = "\n".join(f"{letter}. {option}" for letter, option in options)
    bracketed = "\n".join(f"({letter}) {option}" for letter, option in options)
    if name == "mathvista":
        question = f"Question: {row['question']}" + (f" (Unit: {row['unit']})" if row["unit"] else "")
        yield question + (f"\nChoices:\n{bracketed}" if options else "") + "\nHint: Please answer the question."
        yield f"{row['question']}\n{lettered}\nAnswer the question."
    elif name == "mathvision":
        yield f'Put your answer in one "\\boxed{{}}".{row["question"]}' + (f"\nChoices: {lettered}" if options else "")
    elif name == "wemath":
        yield f"{row['question']}\n{row['option']}"
    else:
        yield row["query_wo"].strip()
        yield row["query_cot"].strip()


def main() -> None:
    """Match the rows of each benchmark, layout and order, and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("repositories", type=Path, help="folder with clones of the four repositories")
    repositories = parser.parse_args().repositories
    for name, read in (
        ("mathvista", mathvista_rows),
        ("mathvision", mathvision_rows),
        ("wemath", wemath_rows),
        ("mathverse", mathverse_rows),
    ):
        rows = list(read(repositories))
        questions = {
            f"{name}-{number}": Question(
                "",
                name,
                content.question,
                content.question_type,
                content.choices,
                content.answer or "",
                content.metadata or {},
            )
            for number, (_, content) in enumerate(rows)
        }
        by_row = dict(enumerate(questions))
        index = QuestionIndex(questions, by_row, {})
        for layout, texts in enumerate(zip(*(prompts(name, row) for row, _ in rows), strict=True), start=1):
            for order in ("same order", "another order"):
                numbers = list(by_row)
                if order == "another order":
                    random.Random(0).shuffle(numbers)
                matches = index.match(
                    [
                        Evidence((), "doc_id", str(number), by_row[number], str(row["answer"]).strip(), text, True)
                        for number, (row, _), text in zip(numbers, rows, texts, strict=True)
                    ]
                )
                right = sum(match == id_ for match, id_ in zip(matches, questions, strict=True))
                refused = Counter(match.problem for match in matches if not isinstance(match, str))
                wrong = len(rows) - right - refused.total()
                counts = ", ".join(f"{count} {problem}" for problem, count in refused.items()) or "none"
                matched = f"{right} of {len(rows)} matched, {wrong} wrongly"
                print(f"{name}, layout {layout}, {order}: {matched}; refused: {counts}")


if __name__ == "__main__":
    main()
