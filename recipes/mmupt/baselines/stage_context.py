"""What the stages of all baselines share: their inputs, verdicts of the policy, and how examples are written."""

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

# So that the share of a verdict estimates the probability that the model gives it.
UNSCALED_SAMPLING = {"temperature": 1.0, "top_p": 1.0}

# The images and the text of each prompt, by id.
Requests = dict[str, tuple[tuple[bytes, ...], str]]


@dataclass(frozen=True)
class StageContext:
    """Inputs of a baseline stage.

    settings: of the method. answers: how answers are compared and vote. policy: the model of the stage. rows: the
    training rows, as `file` has them; drawn from `train_files`. folder: of all stages. instruction: follows each
    question, None for none. seed: of all random draws.
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
    """A training example per selected response to the prompt of a row."""
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
    """A training example, or nothing if one of its texts is empty.

    Args:
        context: of the stage.
        stage: the file with the response that was selected.
        id_, images: of the row.
        prompt: the messages that are trained on.
        kept: the response that was selected, of a pair the chosen one.
        texts: by column, `response` or `chosen` and `rejected`.
        asked_with: the text that the policy responded to, for the record.
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
    """The policy's verdicts on its responses, by row and number of the response; none for responses without answer.

    Responses of a group that lead to the same prompt share their verdicts, as those with equal answers do under a
    prompt that shows the answer alone.
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
