"""Shared by the stages of all baselines: their inputs, the policy's verdicts, and the construction of examples."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmupt.baseline_settings import BaselineSettings
from mmupt.baselines.policy_client import Policy
from mmupt.baselines.prompt_rows import PromptRow
from mmupt.baselines.selection import Sample, SelectedResponse, different_answers
from mmupt.baselines.training_sets import Origin, TrainingExample
from mmupt.prompt_templates import fill_template, placeholders
from verl_ext.rewards.reward_settings import RewardSettings

# With unscaled sampling, the share of a verdict estimates the model's probability of it.
UNSCALED_SAMPLING = {"temperature": 1.0, "top_p": 1.0}

# Images and text of each prompt, by id.
Requests = dict[str, tuple[tuple[bytes, ...], str]]


@dataclass(frozen=True)
class StageContext:
    """Inputs of a baseline stage.

    settings: settings of the method. answers: how answers are compared and voted on. policy: the model of the stage.
    rows: the training rows, read from `file` and drawn from `train_files`. folder: the folder of all stages.
    instruction: text added after each question, or None. seed: seed of all random draws.
    """

    settings: BaselineSettings
    answers: RewardSettings
    policy: Policy
    rows: Sequence[PromptRow]
    file: Path
    train_files: Sequence[str]
    folder: Path
    instruction: str | None
    seed: int


def response_examples(
    context: StageContext, row: PromptRow, kept: Sequence[SelectedResponse]
) -> Iterator[TrainingExample]:
    """Yield a training example for each selected response to the prompt of a row."""
    for selected in kept:
        texts = {"response": selected.sample.response}
        yield from example(context, "samples", row.id, row.prompt, row.images, selected, texts, row.text)


def example(
    context: StageContext,
    stage: str,
    id_: str,
    prompt: list[dict[str, str]],
    images: tuple[bytes, ...],
    kept: SelectedResponse,
    texts: dict[str, str],
    asked_with: str,
) -> Iterator[TrainingExample]:
    """Yield a training example, or nothing if one of its texts is empty.

    Args:
        context: the inputs of the stage.
        stage: the name of the file with the selected response.
        id_, images: id and images of the row.
        prompt: the messages to train on.
        kept: the selected response; for a pair, the chosen one.
        texts: the texts by column, `response` or `chosen` and `rejected`.
        asked_with: the text that the policy responded to; its digest is recorded.
    """
    if not all(text.strip() for text in texts.values()):
        return
    origin = Origin(
        method=context.settings.method,
        stage=stage,
        model=context.policy.model,
        sample=kept.sample.number,
        prompt_sha256=hashlib.sha256(asked_with.encode()).hexdigest(),
        score=kept.score,
    )
    yield TrainingExample(f"{id_}-{kept.sample.number}", prompt, images, texts, origin)


def verdicts(
    context: StageContext, rows: Sequence[PromptRow], groups: Mapping[str, Sequence[Sample]], prompt: str
) -> dict[str, dict[int, list[str]]]:
    """Have the policy judge its responses that have an answer; returns its replies by row id and sample number.

    Responses of a group that lead to the same prompt share their replies, for example responses with equal answers if
    the prompt shows only the answer.
    """
    asked: Requests = {}
    ids: dict[str, dict[int, str]] = {}
    for row in rows:
        answers = different_answers(groups[row.id], context.answers.comparison, row.choices)
        by_text: dict[str, str] = {}
        ids[row.id] = {}
        for sample in groups[row.id]:
            if sample.number in answers:
                known = {
                    "question": row.question,
                    "response": sample.response,
                    "answer": answers[sample.number],
                }
                text = fill_template(prompt, {name: known[name] for name in placeholders(prompt)})
                id_ = by_text.setdefault(text, f"{row.id}-{sample.number}")
                ids[row.id][sample.number] = id_
                asked.setdefault(id_, (row.images, text))
    said = context.policy.replies("verdicts", asked, samples=context.settings.verdict_samples, **UNSCALED_SAMPLING)
    return {row_id: {number: said[id_] for number, id_ in of_row.items()} for row_id, of_row in ids.items()}
