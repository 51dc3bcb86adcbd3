"""Scores saved responses by the benchmark's own rules and by the project's, for `mmupt score`. Generates nothing.

`NAME.scores.json` gets the scores of each benchmark in the file: greedy accuracy, mean@k, pass@k and maj@k, each with
its rule, the breakdowns of the benchmark's authors, and We-Math's further scores. `NAME.verdicts.jsonl` gets one line
per response, with the extracted answer, the ground truth and all verdicts. `NAME.judge.jsonl` keeps the replies of a
judge model, so that each is requested once.
"""

import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

from mmupt.benchmarks import BENCHMARKS
from mmupt.console import Note, emit, printable
from mmupt.evaluation.benchmark_scores import BenchmarkScores, score_verdicts
from mmupt.evaluation.judge_client import Judge
from mmupt.evaluation.judge_verdicts import describe, judge_verdicts, kept_path
from mmupt.evaluation.verdicts import AnyExtraction, judge_file, write_verdicts
from verl_ext.answers import AnswerRule
from verl_ext.files import write_json
from verl_ext.scores import Score


def score_file(
    file: Path,
    extraction: AnyExtraction | None = None,
    judge: Judge | None = None,
    rule: AnswerRule | None = None,
) -> list[BenchmarkScores[Score]]:
    """Score one file of responses and write the results beside it. Bad lines are named on stderr and left out.

    `extraction` and `rule` replace the recorded values, see `judge_file`.

    Returns:
        The scores of each benchmark. If any request about a benchmark failed, none of its scores are by the judge.

    Raises:
        JudgeError: the judge cannot be used at all.
        FileNotFoundError: the file or its parameters are missing.
        ValueError: no line can be used, or from `judge_file`.
    """
    judged = judge_file(file, extraction, rule)
    for warning in judged.warnings():
        _warn(warning)
    if not judged.verdicts:
        raise ValueError(f"{file}: none of its {len(judged.bad_lines)} lines can be scored")
    verdicts = judged.verdicts
    failures: Counter[str] = Counter()
    if judge:
        sources = dict.fromkeys(judged.questions[verdict.response.id].data_source for verdict in verdicts)
        if rest := [name for name in sources if not (name in BENCHMARKS and BENCHMARKS[name].judge)]:
            _warn(f"{file}: {judge.model} is not asked about {', '.join(rest)}, whose rules use no judge")
        judgement = judge_verdicts(verdicts, judged.questions, judge, kept_path(file))
        verdicts = judgement.verdicts
        failures.update(judged.questions[verdict.response.id].data_source for verdict, _ in judgement.failures)
        if judgement.failures:
            _warn(f"{file}: {describe(judgement.failures)}")
    found = score_verdicts(judged, verdicts)
    if judge:
        found = [replace(scores, not_judged=failures[scores.benchmark]) for scores in found]
    write_verdicts(file.with_suffix(".verdicts.jsonl"), verdicts, judged.questions)
    write_json(file.with_suffix(".scores.json"), [scores.to_json() for scores in found])
    return found


def _warn(text: str) -> None:
    """Print a warning to stderr, and to the command's console if it has one."""
    print(printable(text), file=sys.stderr)
    emit(Note(text))
