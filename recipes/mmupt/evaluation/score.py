"""Score responses that lie there: by the benchmark's own rule, and beside it by the project's. Generates nothing.

    mmupt score runs/eval/Qwen2.5-VL-7B-Instruct/mathvista.jsonl [...]

For each file and benchmark in it a table goes to the console and into `NAME.scores.json` beside the file: greedy
accuracy, mean@k, pass@k and maj@k, each labelled with the rule that made it, the breakdowns of the benchmark's authors,
and We-Math's further scores. One JSON line for each response, with what was extracted, the truth and all verdicts, goes
into `NAME.verdicts.jsonl`. Lines that cannot be used are named, and the others scored.

    mmupt score FILE --judge-url http://localhost:8000/v1 --judge-model NAME

asks a judge model where the benchmark's authors do; its replies are kept in `NAME.judge.jsonl`, so that none is asked
for twice.
"""

import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from mmupt.evaluation.benchmark_scores import scores_by_benchmark
from mmupt.evaluation.judge_client import Judge
from mmupt.evaluation.judge_verdicts import describe, judge_verdicts, kept_path
from mmupt.evaluation.verdicts import AnyExtraction, judge_file, write_verdicts
from verl_ext.files import write_json

Number = TypeVar("Number", int, float)


def score_file(file: Path, extraction: AnyExtraction | None = None, judge: Judge | None = None) -> list[dict[str, Any]]:
    """Score one file of responses and write what the module says beside it; name the bad lines on stderr.

    Returns:
        The `scores_of` each benchmark; with a judge, `not_judged` is the number of its responses about which a request
        failed, and where there is any, no figure is by the judge.

    Raises:
        JudgeError: the judge cannot be asked at all.
        FileNotFoundError: the file or its parameters are missing.
        ValueError: a question without a truth or without the extraction, or no line that can be used.
    """
    judged = judge_file(file, extraction)
    for line, why in judged.bad_lines:
        print(f"{file}, line {line}, is left out: {why}", file=sys.stderr)
    if not judged.verdicts:
        raise ValueError(f"{file}: none of its {len(judged.bad_lines)} lines can be scored")
    verdicts = judged.verdicts
    failures: Counter[str] = Counter()
    if judge:
        judgement = judge_verdicts(verdicts, judged.questions, judge, kept_path(file))
        verdicts = judgement.verdicts
        failures.update(judged.questions[one.response.id].data_source for one, _ in judgement.failures)
        if judgement.failures:
            print(f"{file}: {describe(judgement.failures)}", file=sys.stderr)
    found = scores_by_benchmark(verdicts, judged.questions)
    if judge:
        found = [{**one, "not_judged": failures[one["benchmark"]]} for one in found]
    write_verdicts(file.with_suffix(".verdicts.jsonl"), verdicts, judged.questions)
    write_json(file.with_suffix(".scores.json"), found)
    return found


def _or_null(kind: type[Number]) -> Callable[[str], Number | None]:
    """Read a number, or None from "null"."""

    def number(text: str) -> Number | None:
        return None if text == "null" else kind(text)

    number.__name__ = f"{kind.__name__} or null"
    return number
