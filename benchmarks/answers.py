"""Right and wrong verdicts of the three rules for answers on pairs with a known verdict, ours with every miss.

    .venv/bin/python benchmarks/answers.py [--limit N] [PAIRS.jsonl ...]

Each of the files holds pairs of your own, one a line with the keys a, b, equal and category.

Prints Markdown: how often the verdict of each rule is that of a careful grader (`tests/verl_ext/hand_checked`), by kind
of answer; how often the extraction is right; and the verdicts of each rule on pairs on which graders differ.
Verdicts on `pairs.jsonl` are those on two answers alone (`equivalent`), all others those of a vote, a group of the two
answers, except where the table says otherwise. The graders of others have 5 s per pair, as this is about verdicts, not
time. A pair that they still do not decide, which a vote takes for different, is neither right nor wrong here. A minute
and a half.
"""

import argparse
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from verl_ext.answers import AnswerRule, Comparison, classify, correct, equivalent, extract_answer, foreign_rules

FOLDER = Path(__file__).parent.parent / "tests" / "verl_ext" / "hand_checked"
RULES: Sequence[AnswerRule] = get_args(AnswerRule)
SECONDS = 5.0
OUTCOMES = ("right", "false equality", "false difference", "undecided")

Row = Mapping[str, Any]


def rows_of(path: Path, limit: int | None) -> list[Row]:
    """Read a list of pairs or responses, the first `limit` of them unless it is None."""
    return [json.loads(line) for line in path.read_text().splitlines()[:limit]]


def same(rule: AnswerRule, row: Row) -> bool | None:
    """Whether the two answers are one class in a vote; None if that is not decided."""
    if rule == "canonical":
        return len(classify([row["a"], row["b"]], choices=row.get("choices")).members) == 1
    with foreign_rules.comparison(rule) as accepts:
        return accepts(*sorted((row["a"].strip(), row["b"].strip())))


def outcome_of(rule: AnswerRule, row: Row, *, alone: bool) -> str:
    """Hold a verdict, of a vote or on the two answers alone, against the careful grader's."""
    verdict = same(rule, row)
    if alone and verdict and rule == "canonical":
        verdict = equivalent(row["a"], row["b"], choices=row.get("choices"))
    if verdict is None:
        return "undecided"
    if verdict == row["equal"]:
        return "right"
    return "false equality" if verdict else "false difference"


def print_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table in Markdown."""
    print(f"| {' | '.join(header)} |\n|{'---|' * len(header)}")
    for row in rows:
        print(f"| {' | '.join(map(str, row))} |")
    print(flush=True)


def code(text: str) -> str:
    """Show an answer in a cell of a table."""
    return f"`{text}`".replace("|", r"\|")


def compare_pairs(path: Path, limit: int | None, *, alone: bool) -> None:
    """Print the verdicts on all pairs of a file, then by kind, then our misses."""
    pairs = rows_of(path, limit)
    outcomes = {rule: [outcome_of(rule, row, alone=alone) for row in pairs] for rule in RULES}
    print(f"## {path.name}: {len(pairs)} pairs of answers\n")
    totals = {rule: Counter(found) for rule, found in outcomes.items()}
    print_table(["rule", *OUTCOMES], ([rule, *(totals[rule][outcome] for outcome in OUTCOMES)] for rule in RULES))

    print("By kind: right of all; where not all are, false equalities, false differences, undecided\n")
    by_kind: dict[str, dict[AnswerRule, Counter[str]]] = {}
    for rule in RULES:
        for row, found in zip(pairs, outcomes[rule], strict=True):
            by_kind.setdefault(kind_of(row), {}).setdefault(rule, Counter())[found] += 1
    print_table(
        ["kind", *RULES], ([kind, *(kind_cell(counts[rule]) for rule in RULES)] for kind, counts in by_kind.items())
    )

    misses = [(found, row) for found, row in zip(outcomes["canonical"], pairs, strict=True) if found != "right"]
    print(f"Misses of canonical: {len(misses)}\n")
    if misses:
        print_table(
            ["outcome", "kind", "a", "b"],
            ([found, kind_of(row), code(row["a"]), code(row["b"])] for found, row in misses),
        )


def kind_of(row: Row) -> str:
    """The kind of a pair, by either name."""
    return str(row["kind"] if "kind" in row else row["category"])


def kind_cell(counts: Mapping[str, int]) -> str:
    """The outcomes of one rule for one kind."""
    right, *wrong = (counts[outcome] for outcome in OUTCOMES)
    return f"{right}/{right + sum(wrong)}" + (f"; {', '.join(map(str, wrong))}" if any(wrong) else "")


def check_responses(limit: int | None) -> None:
    """Print how many responses give the answer that they should, by extraction."""
    responses = rows_of(FOLDER / "responses.jsonl", limit)
    found = [extract_answer(row["response"], row["rule"]) for row in responses]
    print(f"## Answers of {len(responses)} responses\n")
    right = Counter(row["rule"] for row, answer in zip(responses, found, strict=True) if answer == row["answer"])
    every = Counter(row["rule"] for row in responses)
    print_table(["extraction", "right", "of"], ([rule, right[rule], count] for rule, count in every.items()))
    for row, answer in zip(responses, found, strict=True):
        if answer != row["answer"]:
            print(f"- {row['response']!r}: {answer!r} instead of {row['answer']!r}")


def show_contested(limit: int | None) -> None:
    """Print the verdicts of each rule on the pairs on which good graders differ."""
    print("## Contested pairs\n")
    print(
        "= equal, ≠ different, ? undecided. `alone`: the two answers with nothing else known (`equivalent`); `vote`: a "
        "group of these two, where a bare number joins one with the group's only unit; `truth`: b is the truth.\n"
    )
    symbols = {True: "=", False: "≠", None: "?"}
    header = ["a", "b", "canonical: alone", *(f"{rule}: {use}" for rule in RULES for use in ("vote", "truth"))]
    table = []
    for row in rows_of(FOLDER / "contested.jsonl", limit):
        verdicts: list[bool | None] = [equivalent(row["a"], row["b"], choices=row["choices"])]
        for rule in RULES:
            verdicts += [same(rule, row), correct(row["a"], row["b"], Comparison(rule), row["choices"])]
        table.append([code(row["a"]), code(row["b"]), *(symbols[verdict] for verdict in verdicts)])
    print_table(header, table)


def main() -> None:
    """Print all parts."""
    parser = argparse.ArgumentParser(description="Right and wrong verdicts of the rules for answers.")
    parser.add_argument("--limit", type=int, help="pairs of each file; all unless given")
    parser.add_argument("pairs", nargs="*", type=Path, help="more pairs, JSON lines with a, b, equal and category")
    arguments = parser.parse_args()
    limit = arguments.limit
    foreign_rules.SECONDS_PER_PAIR = foreign_rules.SECONDS_PER_GROUP = SECONDS
    compare_pairs(FOLDER / "pairs.jsonl", limit, alone=True)
    for path in (FOLDER / "everyday.jsonl", *arguments.pairs):
        compare_pairs(path, limit, alone=False)
    check_responses(limit)
    show_contested(limit)


if __name__ == "__main__":
    main()
