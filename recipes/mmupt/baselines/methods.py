"""The stages of each method: which prompts the policy responds to, and which responses become training examples.

`mmupt.baselines.selection` decides which responses are kept, `baseline_settings.METHODS` how they are trained on. Only
`rejection_sft`, the control with labels, reads the ground truth.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from mmupt.baseline_settings import LABELLED, BaselineSettings
from mmupt.baselines.image_corruption import corrupt
from mmupt.baselines.policy_client import Policy
from mmupt.baselines.prompt_rows import PromptRow, read_prompt_rows
from mmupt.baselines.selection import (
    Sample,
    SelectedResponse,
    agreeing,
    believed,
    best_and_worst,
    description_pair,
    different_answers,
    mean_points,
    right,
    share_of_yes,
)
from mmupt.baselines.training_sets import Origin, TrainingExample
from mmupt.evaluation.response_cache import prompt_row
from mmupt.prompt_templates import fill_template, placeholders
from mmupt.synthesis.synthesize import load_synthesis_config, synthesize
from verl_ext.datasets.ground_truth import read_truth
from verl_ext.datasets.row_format import with_instruction
from verl_ext.rewards.reward_settings import RewardSettings

# So that the share of a verdict estimates the probability that the model gives it.
UNSCALED_SAMPLING = {"temperature": 1.0, "top_p": 1.0}

# Questions are written from images alone, so that copies of existing questions do not matter; a later check of the
# answers decides whether they can be answered.
OWN_QUESTIONS = (
    "strategies=[direct]",
    *(f"filters.{name}.enabled=false" for name in ("copy_of_parent", "self_check", "difficulty")),
)

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


def labelled_responses(context: StageContext) -> Iterator[TrainingExample]:
    """rejection_sft: the responses that match the ground truth."""
    truths = read_truth(context.train_files)
    groups = context.policy.samples("samples", context.rows)
    for row in context.rows:
        kept = right(groups[row.id], truths.get(row.id), context.answers.comparison, row.choices)
        yield from _responses(context, row, kept)


def majority_responses(context: StageContext) -> Iterator[TrainingExample]:
    """lmsi: the responses that agree with a sufficiently large majority."""
    groups = context.policy.samples("samples", context.rows)
    for row in context.rows:
        kept = agreeing(groups[row.id], context.answers.policy, context.answers.comparison, row.choices)
        yield from _responses(context, row, kept)


def judged_pairs(context: StageContext) -> Iterator[TrainingExample]:
    """srlm: per group, the response that the policy itself scores highest against the one that it scores lowest."""
    groups = context.policy.samples("samples", context.rows)
    verdicts = _verdicts(context, context.rows, groups, context.settings.prompts["judge"])
    score = mean_points if context.settings.judge_scale == "points" else share_of_yes
    for row in context.rows:
        pair = best_and_worst(groups[row.id], {n: score(replies) for n, replies in verdicts[row.id].items()})
        if pair:
            texts = {"chosen": pair.chosen.sample.response, "rejected": pair.rejected.sample.response}
            yield from _example(context, "samples", row.id, row.prompt, row.images, pair.chosen, texts, row.text)


def believed_responses(context: StageContext) -> Iterator[TrainingExample]:
    """genixer: responses to the policy's own questions whose answers it affirms."""
    rows = read_prompt_rows(_own_questions(context), context.instruction)
    groups = context.policy.samples("samples", rows)
    verdicts = _verdicts(context, rows, groups, context.settings.prompts["self_check"])
    for row in rows:
        yes = {number: share_of_yes(replies) for number, replies in verdicts[row.id].items()}
        yield from _responses(context, row, believed(groups[row.id], yes, context.settings.min_yes))


def description_pairs(context: StageContext) -> Iterator[TrainingExample]:
    """stic, first stage: a good description of each image against a bad one."""
    prompts = context.settings.prompts
    with_images = [row for row in context.rows if row.images]
    asked: dict[str, str] = {}
    good: Requests = {}
    bad: Requests = {}
    for row in with_images:
        random = Random(f"stic/{context.seed}/{row.id}")
        asked[row.id] = random.choice(_lines(prompts["describe"]))
        good[row.id] = row.images, prompts["describe_well"]
        if random.random() < context.settings.bad_prompt_share:
            bad[row.id] = row.images, random.choice(_lines(prompts["describe_badly"]))
        else:
            corrupted = (corrupt(image, f"{context.seed}/{row.id}/{n}") for n, image in enumerate(row.images))
            bad[row.id] = tuple(corrupted), asked[row.id]
    preferred = context.policy.replies("preferred", good, samples=1)
    dispreferred = context.policy.replies("dispreferred", bad, samples=1)
    for row in with_images:
        pair = description_pair(preferred[row.id][0], dispreferred[row.id][0])
        if pair:
            texts = {"chosen": pair.chosen.sample.response, "rejected": pair.rejected.sample.response}
            prompt = prompt_row(row.id, row.images, asked[row.id])["prompt"]
            text = prompts["describe_well"]
            yield from _example(context, "preferred", row.id, prompt, row.images, pair.chosen, texts, text)


def described_responses(context: StageContext) -> Iterator[TrainingExample]:
    """stic, second stage: the policy's responses, trained on with its own description of the image in the prompt."""
    prompts = context.settings.prompts
    with_images = [row for row in context.rows if row.images]
    describe = {
        row.id: Random(f"stic/{context.seed}/{row.id}").choice(_lines(prompts["describe"])) for row in with_images
    }
    asked = {row.id: (row.images, describe[row.id]) for row in with_images}
    descriptions = context.policy.replies("descriptions", asked, samples=1)
    groups = context.policy.samples("samples", with_images)
    for row in with_images:
        texts = {"description": descriptions[row.id][0], "question": row.question}
        text = fill_template(prompts["described"], {name: texts[name] for name in placeholders(prompts["described"])})
        prompt = prompt_row(row.id, row.images, with_instruction(text, context.instruction))["prompt"]
        for sample in groups[row.id]:
            said = {"response": sample.response}
            yield from _example(
                context, "samples", row.id, prompt, row.images, SelectedResponse(sample, None), said, row.text
            )


# Per method, one training set for each of its trainers in `baseline_settings.METHODS`.
SETS: dict[str, tuple[Callable[[StageContext], Iterator[TrainingExample]], ...]] = {
    LABELLED: (labelled_responses,),
    "lmsi": (majority_responses,),
    "srlm": (judged_pairs,),
    "genixer": (believed_responses,),
    "stic": (description_pairs, described_responses),
}


def _responses(context: StageContext, row: PromptRow, kept: Sequence[SelectedResponse]) -> Iterator[TrainingExample]:
    for one in kept:
        texts = {"response": one.sample.response}
        yield from _example(context, "samples", row.id, row.prompt, row.images, one, texts, row.text)


def _example(
    context: StageContext,
    stage: str,
    id_: str,
    prompt: list[dict[str, str]],
    images: tuple[bytes, ...],
    kept: SelectedResponse,
    texts: dict[str, str],
    asked_with: str,
) -> Iterator[TrainingExample]:
    """The training example, or nothing if one of its texts is empty."""
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


def _verdicts(
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


def _own_questions(context: StageContext) -> Path:
    """Synthesize questions about the images of the rows, and return their file."""
    settings = context.policy.settings
    config = load_synthesis_config([*OWN_QUESTIONS, *context.settings.synthesis])
    config.merge_with(
        {
            "model": settings.model,
            "data": str(context.file),
            "output": str(context.folder / "questions"),
            "name": "train",
            "seed": context.seed,
            "device": settings.device,
            "dtype": settings.dtype,
        }
    )
    return synthesize(config)


def _lines(prompts: str) -> list[str]:
    return [line for line in map(str.strip, prompts.splitlines()) if line]
