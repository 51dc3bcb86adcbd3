"""`stic`: DPO on image descriptions, then fine-tuning on responses to prompts with a description (docs/papers.md)."""

from collections.abc import Iterator
from random import Random

from mmupt.baseline_settings import BASELINES, Baseline, BaselineStage, Placeholders
from mmupt.baselines.image_corruption import corrupt
from mmupt.baselines.selection import SelectedResponse, description_pair
from mmupt.baselines.stage_context import Requests, StageContext, training_examples
from mmupt.baselines.training_sets import TrainingExample
from mmupt.evaluation.response_cache import prompt_row
from mmupt.prompt_templates import fill_template, placeholders
from verl_ext.datasets.row_format import with_instruction


def description_pairs(context: StageContext) -> Iterator[TrainingExample]:
    """First stage: pair a good description of each image with a bad one."""
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
            prompt = prompt_row(row.id, row.images, asked[row.id])["prompt"]
            yield from training_examples(context, row, [pair], "preferred", prompt, prompts["describe_well"])


def described_responses(context: StageContext) -> Iterator[TrainingExample]:
    """Second stage: the policy's responses, with its own description of the image added to the training prompt."""
    prompts = context.settings.prompts
    with_images = [row for row in context.rows if row.images]
    requests: Requests = {}
    for row in with_images:
        random = Random(f"stic/{context.seed}/{row.id}")
        requests[row.id] = row.images, random.choice(_lines(prompts["describe"]))
    descriptions = context.policy.replies("descriptions", requests, samples=1)
    groups = context.policy.samples("samples", with_images)
    for row in with_images:
        texts = {"description": descriptions[row.id][0], "question": row.question}
        text = fill_template(prompts["described"], {name: texts[name] for name in placeholders(prompts["described"])})
        prompt = prompt_row(row.id, row.images, with_instruction(text, context.instruction))["prompt"]
        selected = [SelectedResponse(sample, None) for sample in groups[row.id]]
        yield from training_examples(context, row, selected, prompt=prompt)


def _lines(prompts: str) -> list[str]:
    return [line for line in map(str.strip, prompts.splitlines()) if line]


BASELINES.register(
    Baseline(
        "stic",
        (BaselineStage("dpo", description_pairs), BaselineStage("sft", described_responses)),
        {
            "describe_well": Placeholders(),
            "describe": Placeholders(),
            "describe_badly": Placeholders(),
            "described": Placeholders(("description", "question"), ("description",)),
        },
    )
)
