"""`stic`: DPO on image descriptions, then fine-tuning on responses to prompts with a description (docs/papers.md)."""

from collections.abc import Iterator
from random import Random

from mmupt.baseline_settings import BASELINES, Baseline, BaselineStage, Placeholders
from mmupt.baselines.image_corruption import corrupt
from mmupt.baselines.selection import SelectedResponse, description_pair
from mmupt.baselines.stage_context import Requests, StageContext, example
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
            texts = {"chosen": pair.chosen.sample.response, "rejected": pair.rejected.sample.response}
            prompt = prompt_row(row.id, row.images, asked[row.id])["prompt"]
            text = prompts["describe_well"]
            yield from example(context, "preferred", row.id, prompt, row.images, pair.chosen, texts, text)


def described_responses(context: StageContext) -> Iterator[TrainingExample]:
    """Second stage: the policy's responses, with its own description of the image added to the training prompt."""
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
            yield from example(
                context, "samples", row.id, prompt, row.images, SelectedResponse(sample, None), said, row.text
            )


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
