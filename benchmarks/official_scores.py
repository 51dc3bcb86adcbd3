"""Compare our scorers with the benchmark authors' code on the responses that the authors publish.

    git clone --depth 1 https://github.com/mathllm/MATH-V authors/MATH-V
    git clone --depth 1 https://github.com/lupantech/MathVista authors/MathVista
    git clone --depth 1 https://github.com/ZrrSkywalker/MathVerse authors/MathVerse
    git clone --depth 1 https://github.com/We-Math/We-Math authors/We-Math
    uv pip install --target authors/packages latex2sympy2==1.9.1 sympy==1.14.0 "pandas<3" \\
        levenshtein rich fire word2number
    .venv/bin/python benchmarks/official_scores.py authors

The authors' code is imported from the clones in a child process and writes only to a temporary folder. Only the child
sees `packages`: latex2sympy2 needs antlr 4.7.2, and hydra 4.9.3.

A row of the table counts the responses of a file on which both agree; disagreements follow by kind. We-Math's authors
publish no responses, so random ones replace them. MathVerse's authors leave extraction and scoring to a judge model, so
only the parsing of options and ground truths is checked. MathVista's responses that are programs are left out of
extraction, because their answer is what the program prints.
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
# Forms of a response to We-Math. File i uses the first i + 1 of them.
WEMATH_FORMS = ("{}", "<Answer>: <<{}>>", "Answer: {}. 5 cm", "so A\n<Answer>: {}", "Answer: ({})", "It is {}", "")
EXAMPLES = 3
# MathVista's responses by what the authors' model extracted. Only the first kind compares extraction alone.
COMPARABLE = "responses whose extraction is an answer"
EMPTY = "empty responses"
GOES_ON = "responses that go on to another question"
NO_ANSWER = "extractions without an option, a number or a list"
CONTRADICTED = "extractions of another letter than the response states"
KINDS = (COMPARABLE, EMPTY, GOES_ON, NO_ANSWER, CONTRADICTED)
# Lines that start another question, after which a response no longer answers the first.
NEXT_QUESTION = re.compile(r"\n\s*(?:Hint|Question|Image|Example)\s*:")
STATED_LETTER = re.compile(r"\(([A-Z])\)|\b(?:answer|option|choice)\s+is:?\s+([A-Z])\b")


@dataclass
class Agreement:
    """How many of `total` responses both agree on (`same`), and examples of disagreements by kind."""

    benchmark: str
    what: str
    file: str
    same: int = 0
    total: int = 0
    kinds: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(self, agrees: bool, kind: str, example: str) -> None:
        """Count one response, and keep it as an example if the two disagree."""
        self.count(agrees)
        if not agrees:
            self.kinds[kind].append(example)

    def count(self, agrees: bool) -> None:
        """Count one response."""
        self.total += 1
        self.same += agrees


def compare_mathvision(folder: Path) -> Iterator[Agreement]:
    """Compare verdicts on the answers that the authors extracted, and on whole responses."""
    from mmupt.benchmarks import mathvision

    rows = map(json.loads, (folder / "data/test.jsonl").open())
    questions = {row["id"]: _question("mathvision", {**row, "image": {"bytes": b""}}) for row in rows}
    files = sorted(folder.glob("outputs/**/*.jsonl"))
    for file, verdicts in zip(files, _theirs("MATH-V", folder, [str(file.resolve()) for file in files]), strict=True):
        agreements = [
            Agreement("MATH-Vision", what, file.stem) for what in ("verdict, their answers", "verdict, responses")
        ]
        for line, their_verdicts in zip(map(json.loads, file.open()), verdicts, strict=True):
            question = questions[line["id"]]
            answers = (line["model_answer"], mathvision.extract(line["response"], question))
            for agreement, answer, theirs in zip(agreements, answers, their_verdicts, strict=True):
                ours = mathvision.is_correct(answer, question)
                kind = f"{agreement.what}: right by {'ours' if ours else 'theirs'} alone"
                example = f"{question.id}: {answer!r:.90}, truth {question.truth} of {question.choices}"
                agreement.add(ours == theirs, kind, example)
        yield from agreements


def compare_mathvista(folder: Path) -> Iterator[Agreement]:
    """Compare how the authors' extractions are normalised, and the verdicts on our extractions from the responses."""
    from mmupt.benchmarks import mathvista

    # The authors publish no answers to the test split.
    files = sorted(file for file in folder.glob("results/*/output*.json") if not file.stem.startswith("output_test_"))
    contents = [json.loads(file.read_text()) for file in files]
    row_lists = [[row for row in content.values() if "extraction" in row] for content in contents]
    kinds = {kind: Agreement("MathVista", f"verdict, {kind}", "all") for kind in KINDS}
    for file, rows, normalised in zip(files, row_lists, _theirs("MathVista", folder, row_lists), strict=True):
        name = file.stem.removeprefix("output_")
        normalisation = Agreement("MathVista", "normalised, their answers", name)
        verdicts = Agreement("MathVista", "verdict, responses", name)
        for row, their_answer in zip(rows, normalised, strict=True):
            question = _question("mathvista", {"query": "", **row, "decoded_image": {"bytes": b""}})
            extraction, response = row["extraction"], row["response"]
            same = mathvista.normalise(extraction, question) == their_answer
            normalisation.add(same, "normalised otherwise", f"{question.id}: {extraction!r}")
            answer = mathvista.extract(response, question)
            kind = _kind_of_extraction(response, extraction, question)
            example = f"{name} {question.id}: {answer!r:.50}, theirs {extraction!r:.50}: ...{response[-90:]!r}"
            agrees = mathvista.is_correct_cleaned(answer, question) == (their_answer == question.truth)
            if "_code" not in name:
                verdicts.count(agrees)
                kinds[kind].add(agrees, f"verdict, {kind}", example)
        yield normalisation
        if "_code" not in name:
            yield verdicts
    yield from kinds.values()


def _kind_of_extraction(response: str, extraction: str, question: Any) -> str:
    """Classify an extraction of the authors' model: one of `KINDS`."""
    if not response.strip(" \n\t\u200b"):
        return EMPTY
    if NEXT_QUESTION.search(response):
        return GOES_ON
    if not _names_answer(extraction, question):
        return NO_ANSWER
    stated = {in_brackets or in_words for in_brackets, in_words in STATED_LETTER.findall(response)}
    letters = ascii_uppercase[: len(question.choices or ())]
    if len(stated) == 1 and stated <= set(letters):
        text = extraction.strip()
        theirs = letters[question.choices.index(text)] if text in question.choices else text.strip("().")[:1]
        if theirs in letters and theirs not in stated:
            return CONTRADICTED
    return COMPARABLE


def _names_answer(extraction: str, question: Any) -> bool:
    """Whether an extraction is the letter or text of an option, a number or a list, rather than a sentence."""
    text = extraction.strip()
    if question.choices:
        letters = ascii_uppercase[: len(question.choices)]
        return text in question.choices or (len(text) < 4 and text.strip("().")[:1] in letters)
    return any(character.isdigit() for character in text) and len(text.split()) < 4


def compare_mathverse(folder: Path) -> Iterator[Agreement]:
    """Check that all options are parsed, and that the ground truth counts as correct and no other letter does."""
    from mmupt.benchmarks import Question, mathverse

    file = folder / "data/testmini_text_only.json"
    parsed = Agreement("MathVerse", "options are read", file.stem)
    right = Agreement("MathVerse", "the truth alone is right", file.stem)
    for row in json.loads(file.read_text()):
        question_type, truth = row["question_type"], row["answer"]
        question = Question(row["sample_index"], "mathverse", row["question"], question_type, None, truth, {})
        example = f"{question.id}: {question.truth!r}"
        choices = mathverse.options(question) or []
        if question.question_type == "multi-choice":
            parsed.add(bool(choices), "options are not read", example)
        letters = {mathverse.letter_of(line, choices) for line in question.truth.splitlines()}
        others = [letter for letter in ascii_uppercase[: len(choices)] if letter not in letters]
        alone = not any(mathverse.is_correct(letter, question) for letter in others)
        right.add(mathverse.is_correct(question.truth, question) and alone, "the truth is not right alone", example)
    yield from (parsed, right)


def compare_wemath(folder: Path) -> Iterator[Agreement]:
    """Compare all figures of the authors' two tables, to the decimals that they print."""
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
        verdicts = {
            question.id: wemath.is_correct(wemath.extract(question.metadata["response"], question), question)
            for question in questions
        }
        ours = {name: f"{value:.2%}" for name, value in wemath.scores(verdicts, questions).items()}
        agreement = Agreement("We-Math", "figures of both tables", f"random responses {number}")
        for name, value in _theirs("We-Math", folder, rows).items():
            agreement.add(ours.get(name) == value, name, f"{value}, ours {ours.get(name)}")
        yield agreement


def _question(benchmark: str, row: dict[str, Any]) -> Any:
    """Convert a row of the authors' data to our benchmark's Question."""
    from mmupt.benchmarks import BENCHMARKS, Question
    from mmupt_data.hub import HubDataset

    data = BENCHMARKS[benchmark].data
    assert isinstance(data, HubDataset)
    content = next(layout.read for layout in data.layouts if layout.columns.keys() <= row.keys())(row)
    assert content.id is not None and content.answer is not None
    return Question(
        content.id,
        benchmark,
        content.question,
        content.question_type,
        content.choices,
        content.answer,
        json.loads(json.dumps(content.metadata)),
    )


def _theirs(name: str, folder: Path, task: Any) -> Any:
    """Run the authors' code on JSON-serialisable input in a child process; returns its JSON output."""
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
    """The verdicts of `evaluate.py` per file and line: on the extracted answer, and on the response."""
    os.chdir(folder)
    import evaluate

    evaluate.is_equal = cache(evaluate.is_equal)
    results = []
    with tempfile.TemporaryDirectory() as scratch:
        for file in files:
            verdicts = []
            for extract in (False, True):
                copy = Path(scratch, "copy.jsonl")
                copy.write_text(Path(file).read_text())
                evaluate.evaluate(str(copy), extract)
                verdicts.append([bool(json.loads(line)["correct"]) for line in copy.open()])
            results.append(list(zip(*verdicts, strict=True)))
    return results


def run_mathvista(folder: Path, files: list[list[dict[str, Any]]]) -> list[list[str | None]]:
    """The extractions of each file, normalised by `calculate_score.py`."""
    sys.path.insert(0, str(folder))
    from calculate_score import normalize_extracted_answer

    names = ("extraction", "choices", "question_type", "answer_type", "precision")
    return [[normalize_extracted_answer(*(row[name] for name in names)) for row in rows] for rows in files]


def run_wemath(folder: Path, rows: list[dict[str, Any]]) -> dict[str, str]:
    """The figures that `accuracy.py` and `four_dimensional_metrics.py` print, under the names of `wemath.scores`."""
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
    steps = pandas.concat([accuracy.evaluate_steps(frame, n, nodes) for frame, n in zip(merged, (2, 3), strict=True)])
    figures = {
        "S1": f"{steps['joker'].mean():.2%}",
        "S2": f"{merged[0]['joker_multi'].mean():.2%}",
        "S3": f"{merged[1]['joker_multi'].mean():.2%}",
    }
    table = metrics.update_main_results_df(pandas.DataFrame(), "", counts, rates).iloc[0]
    names = {"IK": "InsufficientKnowledge", "IG": "InadequateGeneralization", "CM": "CompleteMastery"}
    for kind in ("strict", "loose"):
        figures[f"{kind} score"] = table[f"Score ({kind.title()})"]
        for ours, theirs in (*names.items(), ("RM rate", "RoteMemorization")):
            figures[f"{kind} {ours}"] = table[f"{theirs} ({kind.title()})"].split()[0]
    return figures


COMPARED: dict[str, tuple[Callable[[Path], Iterator[Agreement]], Callable[[Path, Any], Any] | None]] = {
    "MATH-V": (compare_mathvision, run_mathvision),
    "MathVista": (compare_mathvista, run_mathvista),
    "MathVerse": (compare_mathverse, None),
    "We-Math": (compare_wemath, run_wemath),
}


def render(agreements: list[Agreement]) -> str:
    """Format the table by file with totals, then the disagreements by kind with examples."""
    lines = ["| benchmark | compared | file | same | of | % |", "|---|---|---|---|---|---|"]
    sums: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    kinds: dict[tuple[str, str], list[str]] = defaultdict(list)
    for item in agreements:
        sums[item.benchmark, item.what].update(same=item.same, total=item.total)
        lines.append(_line(item.benchmark, item.what, item.file, item.same, item.total))
        for kind, examples in item.kinds.items():
            kinds[item.benchmark, kind] += [f"{item.file} {example}" for example in examples]
    lines += [_line(*name, "**all**", count["same"], count["total"]) for name, count in sums.items()]
    for (benchmark, kind), examples in sorted(kinds.items(), key=lambda item: -len(item[1])):
        lines += ["", f"{benchmark}, {kind}: {len(examples)}"]
        lines += [f"  {example}" for example in random.Random(0).sample(examples, min(EXAMPLES, len(examples)))]
    return "\n".join(lines)


def _line(benchmark: str, what: str, file: str, same: int, total: int) -> str:
    return f"| {benchmark} | {what} | {file} | {same} | {total} | {100 * same / max(total, 1):.2f} |"


def main() -> None:
    """Compare on all repositories in the folder, or on one; print the tables."""
    parser = argparse.ArgumentParser(description="Compare our scorers with the benchmark authors' code.")
    parser.add_argument("folder", type=Path, help="folder with the authors' repositories and packages")
    parser.add_argument("--only", choices=COMPARED, help="compare this repository alone")
    parser.add_argument("--child", choices=COMPARED, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        _, run = COMPARED[arguments.child]
        assert run is not None
        sys.path.insert(0, str(arguments.folder / "evaluation"))
        print(f"\n{json.dumps(run(arguments.folder, json.load(sys.stdin)))}")
        return
    agreements: list[Agreement] = []
    for name, (compare, _) in COMPARED.items():
        if arguments.only in (None, name):
            if not (folder := arguments.folder / name).is_dir():
                parser.error(f"{folder} is missing: clone it as the docstring of this script says")
            begin = time.perf_counter()
            agreements += compare(folder)
            print(f"{name}: {time.perf_counter() - begin:.0f} s", file=sys.stderr)
    print(render(agreements))


if __name__ == "__main__":
    main()
