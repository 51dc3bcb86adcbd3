"""Shared by the stages of all baselines: their inputs, the policy's verdicts, and the construction of examples."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmupt.baseline_settings import BaselineSettings
from mmupt.baselines.policy_client import Policy
from mmupt.baselines.prompt_rows import PromptRow
from mmupt.baselines.selection import Sample, SelectedPair, SelectedResponse, different_answers
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


def training_examples(
    context: StageContext,
    row: PromptRow,
    selections: Iterable[SelectedResponse | SelectedPair],
    stage: str = "samples",
    prompt: list[dict[str, str]] | None = None,
    asked_with: str | None = None,
) -> Iterator[TrainingExample]:
    """Yield a training example for each selected response or pair whose texts are not empty.

    Args:
        context: the inputs of the stage.
        row: the row that the responses are about.
        selections: the selected responses or pairs.
        stage: the name of the file with the (chosen) responses.
        prompt: the messages to train on; None for those of the row.
        asked_with: the text that the policy responded to, of which the digest is recorded; None for that of the row.
    """
    digest = hashlib.sha256((row.text if asked_with is None else asked_with).encode()).hexdigest()
    for selection in selections:
        if isinstance(selection, SelectedPair):
            selected = selection.chosen
            texts = {"chosen": selected.sample.response, "rejected": selection.rejected.sample.response}
        else:
            selected = selection
            texts = {"response": selected.sample.response}
        if all(text.strip() for text in texts.values()):
            number = selected.sample.number
            origin = Origin(context.settings.method, stage, context.policy.model, number, digest, selected.score)
            yield TrainingExample(f"{row.id}-{number}", prompt or row.prompt, row.images, texts, origin)


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
                known = {"question": row.question, "response": sample.response, "answer": answers[sample.number]}
                text = fill_template(prompt, {name: known[name] for name in placeholders(prompt)})
                id_ = by_text.setdefault(text, f"{row.id}-{sample.number}")
                ids[row.id][sample.number] = id_
                asked.setdefault(id_, (row.images, text))
    replies = context.policy.replies("verdicts", asked, samples=context.settings.verdict_samples, **UNSCALED_SAMPLING)
    return {row_id: {number: replies[id_] for number, id_ in by_number.items()} for row_id, by_number in ids.items()}
