"""Hold the scorers against the benchmark authors' own code, on the responses that the authors publish.

    git clone --depth 1 https://github.com/mathllm/MATH-V authors/MATH-V
    git clone --depth 1 https://github.com/lupantech/MathVista authors/MathVista
    git clone --depth 1 https://github.com/ZrrSkywalker/MathVerse authors/MathVerse
    git clone --depth 1 https://github.com/We-Math/We-Math authors/We-Math
    uv pip install --target authors/packages latex2sympy2==1.9.1 sympy==1.14.0 "pandas<3" \\
        levenshtein rich fire word2number
    .venv/bin/python benchmarks/official_scores.py authors

The authors' code runs in a child process. It is imported from the clones and writes only to a temporary folder. Only
the child sees `packages`: latex2sympy2 needs antlr 4.7.2, and hydra 4.9.3.

A line of the table counts on how many responses of a file both agree. Disagreements follow by kind. We-Math's authors
publish no responses, so random ones stand in for them. MathVerse's authors leave both steps to a judge model, so only
the reading of their options and truths is checked. MathVista's responses that are programs are left out of extraction,
as their answer is what the program prints.
"""

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from string import ascii_uppercase
from typing import Any

WEMATH_FILES = 6
WEMATH_PROBLEMS = 525
# Forms of a response to We-Math; a file uses the first of them.
WEMATH_FORMS = ("{}", "<Answer>: <<{}>>", "Answer: {}. 5 cm", "so A\n<Answer>: {}", "Answer: ({})", "It is {}", "")
EXAMPLES = 3
# MathVista's responses by what the authors' model extracted: only the first kind is certain to compare readings.
COMPARABLE = "responses whose extraction is an answer"
EMPTY = "empty responses"
GOES_ON = "responses that go on to another question"
NO_ANSWER = "extractions without an option, a number or a list"
CONTRADICTED = "extractions of another letter than the response states"
KINDS = (COMPARABLE, EMPTY, GOES_ON, NO_ANSWER, CONTRADICTED)
# What follows such a line of a response is another question.
NEXT_QUESTION = re.compile(r"\n\s*(?:Hint|Question|Image|Example)\s*:")
STATED_LETTER = re.compile(r"\(([A-Z])\)|\b(?:answer|option|choice)\s+is:?\s+([A-Z])\b")


@dataclass
class Agreement:
    """Of `total` responses both agree on `same`; examples of the others are kept by kind."""

    benchmark: str
    what: str
    file: str
    same: int = 0
    total: int = 0
    kinds: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(self, agrees: bool, kind: str, example: str) -> None:
        """Count one response, and keep it as an example where they differ."""
        self.count(agrees)
        if not agrees:
            self.kinds[kind].append(example)

    def count(self, agrees: bool) -> None:
        """Count one response."""
        self.total += 1
        self.same += agrees


def compare_mathvision(folder: Path) -> Iterator[Agreement]:
    """The verdicts on the answers that the authors extracted, and on the responses."""
    from mmupt.benchmarks import mathvision

    rows = map(json.loads, (folder / "data/test.jsonl").open())
    questions = {row["id"]: _question("mathvision", {**row, "image": {"bytes": b""}}) for row in rows}
    files = sorted(folder.glob("outputs/**/*.jsonl"))
    for file, verdicts in zip(files, _theirs("MATH-V", folder, [str(file.resolve()) for file in files]), strict=True):
        found = [Agreement("MATH-Vision", what, file.stem) for what in ("verdict, their answers", "verdict, responses")]
        for line, by_them in zip(map(json.loads, file.open()), verdicts, strict=True):
            asked = questions[line["id"]]
            answers = (line["model_answer"], mathvision.extract(line["response"], asked))
            for one, answer, their in zip(found, answers, by_them, strict=True):
                our = mathvision.is_correct(answer, asked)
                kind = f"{one.what}: right by {'ours' if our else 'theirs'} alone"
                one.add(our == their, kind, f"{asked.id}: {answer!r:.90}, truth {asked.truth} of {asked.choices}")
        yield from found


def compare_mathvista(folder: Path) -> Iterator[Agreement]:
    """What the authors' extractions are normalised to, and the verdicts on our extractions from the responses."""
    from mmupt.benchmarks import mathvista

    files = sorted(folder.glob("results/*/output*.json"))
    contents = [json.loads(file.read_text()) for file in files]
    rows = [[row for row in of_file.values() if "extraction" in row] for of_file in contents]
    kinds = {kind: Agreement("MathVista", f"verdict, {kind}", "all") for kind in KINDS}
    for file, of_file, normalised in zip(files, rows, _theirs("MathVista", folder, rows), strict=True):
        name = file.stem.removeprefix("output_")
        rule = Agreement("MathVista", "normalised, their answers", name)
        found = Agreement("MathVista", "verdict, responses", name)
        for row, their in zip(of_file, normalised, strict=True):
            asked = _question("mathvista", {"query": "", **row, "decoded_image": {"bytes": b""}})
            theirs, response = row["extraction"], row["response"]
            rule.add(mathvista.normalise(theirs, asked) == their, "normalised otherwise", f"{asked.id}: {theirs!r}")
            answer = mathvista.extract(response, asked)
            kind = _kind_of_extraction(response, theirs, asked)
            example = f"{name} {asked.id}: {answer!r:.50}, theirs {theirs!r:.50}: ...{response[-90:]!r}"
            agrees = mathvista.is_correct_cleaned(answer, asked) == (their == asked.truth)
            if "_code" not in name:
                found.count(agrees)
                kinds[kind].add(agrees, f"verdict, {kind}", example)
        yield rule
        if "_code" not in name:
            yield found
    yield from kinds.values()


def _kind_of_extraction(response: str, extraction: str, asked: Any) -> str:
    """Whether an extraction of the authors' model can be held against the response: one of `KINDS`."""
    if not response.strip(" \n\t\u200b"):
        return EMPTY
    if NEXT_QUESTION.search(response):
        return GOES_ON
    if not _names_answer(extraction, asked):
        return NO_ANSWER
    stated = {one or other for one, other in STATED_LETTER.findall(response)}
    letters = ascii_uppercase[: len(asked.choices or ())]
    if len(stated) == 1 and stated <= set(letters):
        text = extraction.strip()
        theirs = letters[asked.choices.index(text)] if text in asked.choices else text.strip("().")[:1]
        if theirs in letters and theirs not in stated:
            return CONTRADICTED
    return COMPARABLE


def _names_answer(extraction: str, asked: Any) -> bool:
    """Whether an extraction is a letter or text of an option, a number or a list, and no sentence."""
    text = extraction.strip()
    if asked.choices:
        letters = ascii_uppercase[: len(asked.choices)]
        return text in asked.choices or (len(text) < 4 and text.strip("().")[:1] in letters)
    return any(sign.isdigit() for sign in text) and len(text.split()) < 4


def compare_mathverse(folder: Path) -> Iterator[Agreement]:
    """Whether every option is read, and whether the truth, given as an answer, is right and no other letter is."""
    from mmupt.benchmarks import Question, mathverse

    file = folder / "data/testmini_text_only.json"
    read = Agreement("MathVerse", "options are read", file.stem)
    right = Agreement("MathVerse", "the truth alone is right", file.stem)
    for row in json.loads(file.read_text()):
        of_type, truth = row["question_type"], row["answer"]
        asked = Question(row["sample_index"], "mathverse", row["question"], of_type, None, truth, {})
        example = f"{asked.id}: {asked.truth!r}"
        choices = mathverse.options(asked) or []
        if asked.question_type == "multi-choice":
            read.add(bool(choices), "options are not read", example)
        letters = {mathverse.letter_of(line, choices) for line in asked.truth.splitlines()}
        others = [letter for letter in ascii_uppercase[: len(choices)] if letter not in letters]
        alone = not any(mathverse.is_correct(letter, asked) for letter in others)
        right.add(mathverse.is_correct(asked.truth, asked) and alone, "the truth is not right alone", example)
    yield from (read, right)


def compare_wemath(folder: Path) -> Iterator[Agreement]:
    """All figures of the authors' two tables, to the decimals that they print."""
    from mmupt.benchmarks import Question, wemath

    rows = json.loads((folder / "data/testmini.json").read_text())
    for number in range(WEMATH_FILES):
        draw = random.Random(number)
        for row in rows:
            letter = row["answer"] if draw.random() < 0.2 + 0.12 * number else draw.choice("ABCDE")
            row["response"] = draw.choice(WEMATH_FORMS[: 1 + number]).format(letter)
        questions = [
            Question(f"{row['ID']}@{row['key']}", "wemath", row["question"], "multi_choice", None, row["answer"], row)
            for row in rows
        ]
        right = {one.id: wemath.is_correct(wemath.extract(one.metadata["response"], one), one) for one in questions}
        ours = {name: f"{value:.2%}" for name, value in wemath.scores(right, questions).items()}
        found = Agreement("We-Math", "figures of both tables", f"random responses {number}")
        for name, value in _theirs("We-Math", folder, rows).items():
            found.add(ours.get(name) == value, name, f"{value}, ours {ours.get(name)}")
        yield found


def _question(benchmark: str, row: dict[str, Any]) -> Any:
    """A row of the authors as the benchmark reads it, ready to be scored."""
    from mmupt.benchmarks import BENCHMARKS, Question
    from mmupt_data.hub import HubDataset

    data = BENCHMARKS[benchmark].data
    assert isinstance(data, HubDataset)
    read = next(layout.read for layout in data.layouts if layout.columns.keys() <= row.keys())(row)
    assert read.id is not None and read.answer is not None
    return Question(
        read.id,
        benchmark,
        read.question,
        read.question_type,
        read.choices,
        read.answer,
        json.loads(json.dumps(read.metadata)),
    )


def _theirs(name: str, folder: Path, task: Any) -> Any:
    """What the authors' code makes of a task, in a child process."""
    child = subprocess.run(
        [sys.executable, __file__, str(folder.resolve()), "--child", name],
        input=json.dumps(task),
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(folder.parent.resolve() / "packages")},
        check=False,
    )
    if child.returncode:
        raise SystemExit(f"the authors' code in {folder} failed:\n{child.stderr[-3000:]}")
    return json.loads(child.stdout.splitlines()[-1])


def run_mathvision(folder: Path, files: list[str]) -> list[list[tuple[bool, bool]]]:
    """The verdicts of `evaluate.py` on the answers of each file and, extracting anew, on its responses."""
    os.chdir(folder)
    import evaluate

    evaluate.is_equal = cache(evaluate.is_equal)
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        for file in files:
            verdicts = []
            for extract in (False, True):
                copy = Path(scratch, "copy.jsonl")
                copy.write_text(Path(file).read_text())
                evaluate.evaluate(str(copy), extract)
                verdicts.append([bool(json.loads(line)["correct"]) for line in copy.open()])
            found.append(list(zip(*verdicts, strict=True)))
    return found


def run_mathvista(folder: Path, files: list[list[dict[str, Any]]]) -> list[list[str | None]]:
    """What `calculate_score.py` makes of the extractions of each file."""
    sys.path.insert(0, str(folder))
    from calculate_score import normalize_extracted_answer

    names = ("extraction", "choices", "question_type", "answer_type", "precision")
    return [[normalize_extracted_answer(*(row[name] for name in names)) for row in rows] for rows in files]


def run_wemath(folder: Path, rows: list[dict[str, Any]]) -> dict[str, str]:
    """The figures of `accuracy.py` and `four_dimensional_metrics.py` by the names of `wemath.scores`, as printed."""
    import accuracy
    import four_dimensional_metrics as metrics
    import pandas

    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch, "responses.json")
        file.write_text(json.dumps(rows))
        data = metrics.load_and_process_data(file)
    merged = [metrics.process_steps_data(data[data["key"].str.contains(f"{n}steps")], n) for n in (2, 3)]
    counts, rates = metrics.compute_final_scores(metrics.calculate_metrics(*merged), total_count=WEMATH_PROBLEMS)
    nodes = accuracy.load_knowledge_structure_nodes(folder / "data/knowledge_structure_nodes.json")
    nodes = nodes.drop_duplicates("final_key")
    steps = pandas.concat([accuracy.evaluate_steps(one, n, nodes) for one, n in zip(merged, (2, 3), strict=True)])
    found = {
        "S1": f"{steps['joker'].mean():.2%}",
        "S2": f"{merged[0]['joker_multi'].mean():.2%}",
        "S3": f"{merged[1]['joker_multi'].mean():.2%}",
    }
    table = metrics.update_main_results_df(pandas.DataFrame(), "", counts, rates).iloc[0]
    names = {"IK": "InsufficientKnowledge", "IG": "InadequateGeneralization", "CM": "CompleteMastery"}
    for kind in ("strict", "loose"):
        found[f"{kind} score"] = table[f"Score ({kind.title()})"]
        for ours, theirs in (*names.items(), ("RM rate", "RoteMemorization")):
            found[f"{kind} {ours}"] = table[f"{theirs} ({kind.title()})"].split()[0]
    return found


COMPARED: dict[str, tuple[Callable[[Path], Iterator[Agreement]], Callable[[Path, Any], Any] | None]] = {
    "MATH-V": (compare_mathvision, run_mathvision),
    "MathVista": (compare_mathvista, run_mathvista),
    "MathVerse": (compare_mathverse, None),
    "We-Math": (compare_wemath, run_wemath),
}


def render(found: list[Agreement]) -> str:
    """The table by file with the sums, and the disagreements by kind with examples."""
    lines = ["| benchmark | compared | file | same | of | % |", "|---|---|---|---|---|---|"]
    sums: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    kinds: dict[tuple[str, str], list[str]] = defaultdict(list)
    for one in found:
        sums[one.benchmark, one.what].update(same=one.same, total=one.total)
        lines.append(_line(one.benchmark, one.what, one.file, one.same, one.total))
        for kind, examples in one.kinds.items():
            kinds[one.benchmark, kind] += [f"{one.file} {example}" for example in examples]
    lines += [_line(*name, "**all**", count["same"], count["total"]) for name, count in sums.items()]
    for (benchmark, kind), examples in sorted(kinds.items(), key=lambda item: -len(item[1])):
        lines += ["", f"{benchmark}, {kind}: {len(examples)}"]
        lines += [f"  {example}" for example in random.Random(0).sample(examples, min(EXAMPLES, len(examples)))]
    return "\n".join(lines)


def _line(benchmark: str, what: str, file: str, same: int, total: int) -> str:
    return f"| {benchmark} | {what} | {file} | {same} | {total} | {100 * same / max(total, 1):.2f} |"


def main() -> None:
    """Compare on what is in the folder of the command line."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("folder", type=Path, help="folder with the authors' repositories and packages")
    parser.add_argument("--only", choices=COMPARED, help="one of the repositories")
    parser.add_argument("--child", choices=COMPARED, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        _, run = COMPARED[arguments.child]
        assert run is not None
        sys.path.insert(0, str(arguments.folder / "evaluation"))
        print(f"\n{json.dumps(run(arguments.folder, json.load(sys.stdin)))}")
        return
    found: list[Agreement] = []
    for name, (compare, _) in COMPARED.items():
        if arguments.only in (None, name):
            if not (folder := arguments.folder / name).is_dir():
                parser.error(f"{folder} is missing: the head of this script says how to get it")
            begin = time.perf_counter()
            found += compare(folder)
            print(f"{name}: {time.perf_counter() - begin:.0f} s", file=sys.stderr)
    print(render(found))


if __name__ == "__main__":
    main()
