"""Adds a judge model's verdicts to those by rule: runs the `JudgeSteps` of a benchmark."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from mmupt.benchmarks import BENCHMARKS, JudgeSteps, Question, Unreadable, read_agreement, read_answer
from mmupt.evaluation.judge_client import Judge, Replies, ask
from mmupt.evaluation.verdicts import Reading, Verdict
from verl_ext.counts import pluralize

Read = TypeVar("Read")
# Unjudged responses to name.
NAMED = 20


@dataclass(frozen=True)
class Judgement:
    """Verdicts with the judge's rule first, and those that lack it because a request failed, with the reason."""

    verdicts: list[Verdict]
    failures: list[tuple[Verdict, str]]


def kept_path(file: Path) -> Path:
    """The file with the judge's replies about a file of responses."""
    return file.with_suffix(".judge.jsonl")


def judge_verdicts(
    verdicts: Sequence[Verdict], questions: Mapping[str, Question], judge: Judge, kept: Path
) -> Judgement:
    """Ask the judge about every response to a benchmark whose authors use a judge; other verdicts stay unchanged."""
    steps: dict[int, JudgeSteps] = {}
    for index, verdict in enumerate(verdicts):
        benchmark = BENCHMARKS.get(questions[verdict.response.id].data_source)
        if benchmark and benchmark.judge:
            steps[index] = benchmark.judge

    def texts(index: int) -> tuple[str, Question]:
        response = verdicts[index].response
        return response.response, questions[response.id]

    # Questions that could not be asked are wrong and need no judge.
    not_asked = {index for index in steps if verdicts[index].response.not_asked is not None}
    readings = {
        index: Reading(plain(*texts(index)) if (plain := steps[index].plain) else None)
        for index in steps.keys() - not_asked
    }
    asked = {
        index: steps[index].ask_answer(*texts(index)) for index, reading in readings.items() if reading.answer is None
    }
    replies = ask(judge, asked.values(), kept)
    failures = _failures(asked, replies)
    for index, prompt in asked.items():
        if index not in failures:
            answer, readable = _read(read_answer, replies.texts[prompt])
            readings[index] = Reading(answer, readable)

    right = dict.fromkeys(not_asked, False)
    readings |= dict.fromkeys(not_asked, Reading(None))
    asked = {}
    for index in (index for index in steps if index not in failures and index not in not_asked):
        reading, (_, question) = readings[index], texts(index)
        if (ask_agreement := steps[index].ask_agreement) is None:
            right[index] = BENCHMARKS[question.data_source].rules[0].is_correct(reading.answer, question)
        elif reading.answer is None:
            right[index] = False
        else:
            asked[index] = ask_agreement(reading.answer, question)
    replies = ask(judge, asked.values(), kept)
    failures |= _failures(asked, replies)
    for index, prompt in asked.items():
        if index not in failures:
            agrees, readable = _read(read_agreement, replies.texts[prompt])
            right[index] = bool(agrees)
            readings[index] = readings[index]._replace(readable=readable)

    judged = [
        verdict._replace(right={judge.rule: right[index], **verdict.right}, judged=readings[index])
        if index in right
        else verdict
        for index, verdict in enumerate(verdicts)
    ]
    return Judgement(judged, [(verdicts[index], why) for index, why in sorted(failures.items())])


def _failures(asked: Mapping[int, str], replies: Replies) -> dict[int, str]:
    return {index: replies.failures[prompt] for index, prompt in asked.items() if prompt in replies.failures}


def _read(read: Callable[[str], Read], reply: str) -> tuple[Read | None, bool]:
    """Parse a reply; returns None and False if that fails."""
    try:
        return read(reply), True
    except Unreadable:
        return None, False


def describe(failures: Sequence[tuple[Verdict, str]]) -> str:
    """Describe the responses that could not be judged, naming the first NAMED of them."""
    named = [f"  {response.id}, {response.mode} {response.sample}: {why}" for (response, *_), why in failures[:NAMED]]
    if len(failures) > NAMED:
        named.append(f"  and {len(failures) - NAMED} more")
    return "\n".join(
        [
            f"{pluralize(len(failures), 'response')} could not be judged, so no score is by the judge. Run the same "
            "command again: it asks only about these.",
            *named,
        ]
    )
