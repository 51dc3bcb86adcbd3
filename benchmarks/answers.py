"""Accuracy of the three answer rules on hand-checked pairs of answers, with every miss of our own rule.

    .venv/bin/python benchmarks/answers.py [--limit N] [PAIRS.jsonl ...]

PAIRS.jsonl adds your own pairs: one JSON object per line with the keys a, b, equal and category.

Prints Markdown tables: how often each rule agrees with the hand-checked verdicts (`tests/verl_ext/hand_checked`), by
kind of answer; how often extraction is right; and the verdicts on pairs where good graders differ. `pairs.jsonl` is
judged pair by pair (`equivalent`), all other files as votes in a group of the two answers, unless the table says
otherwise. Third-party graders get 5 s per pair, because this measures verdicts, not time. A pair that they leave
undecided counts as neither right nor wrong here; a vote would treat it as different. Takes 1.5 minutes.
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
    """Whether a vote puts the two answers into one class; None if the rule does not decide."""
    if rule == "canonical":
        return len(classify([row["a"], row["b"]], choices=row.get("choices")).members) == 1
    with foreign_rules.comparison(rule) as accepts:
        return accepts(*sorted((row["a"].strip(), row["b"].strip())))


def outcome_of(rule: AnswerRule, row: Row, *, alone: bool) -> str:
    """Compare a rule's verdict with the hand-checked one: an item of `OUTCOMES`.

    With `alone`, our rule judges the two answers without a group.
    """
    verdict = same(rule, row)
    if alone and verdict and rule == "canonical":
        verdict = equivalent(row["a"], row["b"], choices=row.get("choices"))
    if verdict is None:
        return "undecided"
    if verdict == row["equal"]:
        return "right"
    return "false equality" if verdict else "false difference"


def print_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a Markdown table."""
    print(f"| {' | '.join(header)} |\n|{'---|' * len(header)}")
    for row in rows:
        print(f"| {' | '.join(map(str, row))} |")
    print(flush=True)


def code(text: str) -> str:
    """Format an answer for a table cell."""
    return f"`{text}`".replace("|", r"\|")


def compare_pairs(path: Path, limit: int | None, *, alone: bool) -> None:
    """Print the outcomes for all pairs of a file, in total and by kind, then the misses of our rule."""
    pairs = rows_of(path, limit)
    outcomes = {rule: [outcome_of(rule, row, alone=alone) for row in pairs] for rule in RULES}
    print(f"## {path.name}: {len(pairs)} pairs of answers\n")
    totals = {rule: Counter(values) for rule, values in outcomes.items()}
    print_table(["rule", *OUTCOMES], ([rule, *(totals[rule][outcome] for outcome in OUTCOMES)] for rule in RULES))

    print("By kind: right of all, and if not all are right: false equalities, false differences, undecided\n")
    by_kind: dict[str, dict[AnswerRule, Counter[str]]] = {}
    for rule in RULES:
        for row, outcome in zip(pairs, outcomes[rule], strict=True):
            by_kind.setdefault(kind_of(row), {}).setdefault(rule, Counter())[outcome] += 1
    print_table(
        ["kind", *RULES], ([kind, *(kind_cell(counts[rule]) for rule in RULES)] for kind, counts in by_kind.items())
    )

    misses = [(outcome, row) for outcome, row in zip(outcomes["canonical"], pairs, strict=True) if outcome != "right"]
    print(f"Misses of canonical: {len(misses)}\n")
    if misses:
        print_table(
            ["outcome", "kind", "a", "b"],
            ([outcome, kind_of(row), code(row["a"]), code(row["b"])] for outcome, row in misses),
        )


def kind_of(row: Row) -> str:
    """The kind of a pair: its `kind`, or else its `category`."""
    return str(row["kind"] if "kind" in row else row["category"])


def kind_cell(counts: Mapping[str, int]) -> str:
    """Format the outcomes of one rule for one kind as a table cell."""
    right, *wrong = (counts[outcome] for outcome in OUTCOMES)
    return f"{right}/{right + sum(wrong)}" + (f"; {', '.join(map(str, wrong))}" if any(wrong) else "")


def check_responses(limit: int | None) -> None:
    """Print how many answers each extraction rule extracts correctly, and every wrong one."""
    responses = rows_of(FOLDER / "responses.jsonl", limit)
    answers = [extract_answer(row["response"], row["rule"]) for row in responses]
    print(f"## Answers of {len(responses)} responses\n")
    right = Counter(row["rule"] for row, answer in zip(responses, answers, strict=True) if answer == row["answer"])
    totals = Counter(row["rule"] for row in responses)
    print_table(["extraction", "right", "of"], ([rule, right[rule], total] for rule, total in totals.items()))
    for row, answer in zip(responses, answers, strict=True):
        if answer != row["answer"]:
            print(f"- {row['response']!r}: {answer!r} instead of {row['answer']!r}")


def show_contested(limit: int | None) -> None:
    """Print the verdicts of each rule on pairs where good graders differ."""
    print("## Contested pairs\n")
    print(
        "= equal, ≠ different, ? undecided. `alone`: the two answers without a group (`equivalent`); `vote`: a group "
        "of the two, where a bare number equals the same number with the group's only unit; `truth`: b is the ground "
        "truth.\n"
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
    """Print all tables."""
    parser = argparse.ArgumentParser(description="Accuracy of the three answer rules on hand-checked pairs.")
    parser.add_argument("--limit", type=int, help="pairs per file (default: all)")
    parser.add_argument("pairs", nargs="*", type=Path, help="more pairs: JSON lines with a, b, equal and category")
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
