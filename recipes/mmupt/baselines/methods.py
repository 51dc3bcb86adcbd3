"""The stages of each method: what the policy is asked, in which order, and what is trained on of what it says.

Which responses are kept is decided in `mmupt.baselines.selection`; who trains on them, in `settings.METHODS`.
Nothing here opens the truth of a row, but for `rejection_sft`, which is the control with labels.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from mmupt.baselines.baseline_settings import LABELLED, BaselineSettings
from mmupt.baselines.image_corruption import corrupt
from mmupt.baselines.policy_client import Policy
from mmupt.baselines.prompt_rows import AskedRow, read_rows
from mmupt.baselines.selection import (
    Kept,
    Sample,
    agreeing,
    believed,
    best_and_worst,
    description_pair,
    different_answers,
    mean_points,
    right,
    share_of_yes,
)
from mmupt.baselines.training_sets import Example, Origin
from mmupt.compose import as_override
from mmupt.synthesis.prompt_templates import fill, places
from mmupt.synthesis.synthesis_stages import request
from mmupt.synthesis.synthesize import load_config, synthesize
from verl_ext.datasets.ground_truth import read_truth
from verl_ext.rewards.reward_settings import RewardSettings

# The probability of a verdict is that of the model itself.
AS_THE_MODEL_IS = {"temperature": 1.0, "top_p": 1.0}

# Questions are written from images alone, so that those that are asked already are no copies; whether they can be
# answered is for the check of their answers.
OWN_QUESTIONS = (
    "strategies=[direct]",
    *(f"filters.{name}.enabled=false" for name in ("copy_of_parent", "self_check", "difficulty")),
)

# By id: the images, and the text that is asked about them.
Requests = dict[str, tuple[tuple[bytes, ...], str]]


@dataclass(frozen=True)
class Work:
    """What a stage of a method has at hand.

    settings: of the method. answers: how answers are compared and vote. policy: the model of the stage. rows: those of
    the method, in `file`; `train_files` are those that they were drawn from. folder: of the stages. instruction:
    follows a question after a space, None for nothing. seed: of all that is drawn.
    """

    settings: BaselineSettings
    answers: RewardSettings
    policy: Policy
    rows: Sequence[AskedRow]
    file: Path
    train_files: Sequence[str]
    folder: Path
    instruction: str | None
    seed: int


def labelled_responses(work: Work) -> Iterator[Example]:
    """rejection_sft: the responses that are right by label."""
    truths = read_truth(work.train_files)
    groups = work.policy.samples("samples", work.rows)
    for row in work.rows:
        kept = right(groups[row.id], truths.get(row.id), work.answers.comparison, row.choices)
        yield from _responses(work, row, kept)


def majority_responses(work: Work) -> Iterator[Example]:
    """lmsi: the responses that agree with a majority that is large enough."""
    groups = work.policy.samples("samples", work.rows)
    for row in work.rows:
        kept = agreeing(groups[row.id], work.answers.policy, work.answers.comparison, row.choices)
        yield from _responses(work, row, kept)


def judged_pairs(work: Work) -> Iterator[Example]:
    """srlm: of each group the response that the policy itself judges best, against the one that it judges worst."""
    groups = work.policy.samples("samples", work.rows)
    verdicts = _verdicts(work, work.rows, groups, work.settings.prompts["judge"])
    score = mean_points if work.settings.judge_scale == "points" else share_of_yes
    for row in work.rows:
        pair = best_and_worst(groups[row.id], {n: score(replies) for n, replies in verdicts[row.id].items()})
        if pair:
            texts = {"chosen": pair.chosen.sample.response, "rejected": pair.rejected.sample.response}
            yield from _example(work, "samples", row.id, row.prompt, row.images, pair.chosen, texts, row.text)


def believed_responses(work: Work) -> Iterator[Example]:
    """genixer: responses to questions of the policy's own, where it says of their answers that they are true."""
    rows = read_rows(_own_questions(work), work.instruction)
    groups = work.policy.samples("samples", rows)
    verdicts = _verdicts(work, rows, groups, work.settings.prompts["self_check"])
    for row in rows:
        yes = {number: share_of_yes(replies) for number, replies in verdicts[row.id].items()}
        yield from _responses(work, row, believed(groups[row.id], yes, work.settings.min_yes))


def description_pairs(work: Work) -> Iterator[Example]:
    """stic, first: a good description of each image against a bad one."""
    prompts = work.settings.prompts
    with_images = [row for row in work.rows if row.images]
    asked: dict[str, str] = {}
    good: Requests = {}
    bad: Requests = {}
    for row in with_images:
        random = Random(f"stic/{work.seed}/{row.id}")
        asked[row.id] = random.choice(_lines(prompts["describe"]))
        good[row.id] = row.images, prompts["describe_well"]
        if random.random() < work.settings.bad_prompt_share:
            bad[row.id] = row.images, random.choice(_lines(prompts["describe_badly"]))
        else:
            spoilt = (corrupt(image, f"{work.seed}/{row.id}/{n}") for n, image in enumerate(row.images))
            bad[row.id] = tuple(spoilt), asked[row.id]
    preferred = work.policy.replies("preferred", good, samples=1)
    dispreferred = work.policy.replies("dispreferred", bad, samples=1)
    for row in with_images:
        pair = description_pair(preferred[row.id][0], dispreferred[row.id][0])
        if pair:
            texts = {"chosen": pair.chosen.sample.response, "rejected": pair.rejected.sample.response}
            prompt = request(row.id, row.images, asked[row.id])["prompt"]
            text = prompts["describe_well"]
            yield from _example(work, "preferred", row.id, prompt, row.images, pair.chosen, texts, text)


def described_responses(work: Work) -> Iterator[Example]:
    """stic, second: the policy's own responses, to the question after its own description of the image."""
    prompts = work.settings.prompts
    with_images = [row for row in work.rows if row.images]
    describe = {row.id: Random(f"stic/{work.seed}/{row.id}").choice(_lines(prompts["describe"])) for row in with_images}
    asked = {row.id: (row.images, describe[row.id]) for row in with_images}
    descriptions = work.policy.replies("descriptions", asked, samples=1)
    groups = work.policy.samples("samples", with_images)
    for row in with_images:
        texts = {"description": descriptions[row.id][0], "question": row.question}
        text = fill(prompts["described"], {name: texts[name] for name in places(prompts["described"])})
        text = text if work.instruction is None else f"{text} {work.instruction}"
        prompt = request(row.id, row.images, text)["prompt"]
        for sample in groups[row.id]:
            said = {"response": sample.response}
            yield from _example(work, "samples", row.id, prompt, row.images, Kept(sample, None), said, row.text)


# Of each method one set for each of its trainers in `settings.METHODS`.
SETS: dict[str, tuple[Callable[[Work], Iterator[Example]], ...]] = {
    LABELLED: (labelled_responses,),
    "lmsi": (majority_responses,),
    "srlm": (judged_pairs,),
    "genixer": (believed_responses,),
    "stic": (description_pairs, described_responses),
}


def _responses(work: Work, row: AskedRow, kept: Sequence[Kept]) -> Iterator[Example]:
    for one in kept:
        texts = {"response": one.sample.response}
        yield from _example(work, "samples", row.id, row.prompt, row.images, one, texts, row.text)


def _example(
    work: Work,
    stage: str,
    id_: str,
    prompt: list[dict[str, str]],
    images: tuple[bytes, ...],
    kept: Kept,
    texts: dict[str, str],
    asked_with: str,
) -> Iterator[Example]:
    """The example, or nothing where one of its texts says nothing."""
    if not all(text.strip() for text in texts.values()):
        return
    origin = Origin(
        method=work.settings.method,
        stage=stage,
        model=work.policy.model,
        sample=kept.sample.number,
        prompt_sha256=hashlib.sha256(asked_with.encode()).hexdigest(),
        score=kept.score,
    )
    yield Example(f"{id_}-{kept.sample.number}", prompt, images, texts, origin)


def _verdicts(
    work: Work, rows: Sequence[AskedRow], groups: Mapping[str, Sequence[Sample]], prompt: str
) -> dict[str, dict[int, list[str]]]:
    """What the policy says of its responses, by row and by the number of the response; nothing of those without answer.

    Responses of a group about which the same would be asked, as those with equal answers are where the prompt has a
    place for the answer alone, share the replies.
    """
    asked: Requests = {}
    ids: dict[str, dict[int, str]] = {}
    for row in rows:
        answers = different_answers(groups[row.id], work.answers.comparison, row.choices)
        by_text: dict[str, str] = {}
        ids[row.id] = {}
        for sample in groups[row.id]:
            if sample.number in answers:
                known = {
                    "question": row.question,
                    "response": sample.response,
                    "answer": answers[sample.number],
                }
                text = fill(prompt, {name: known[name] for name in places(prompt)})
                id_ = by_text.setdefault(text, f"{row.id}-{sample.number}")
                ids[row.id][sample.number] = id_
                asked.setdefault(id_, (row.images, text))
    said = work.policy.replies("verdicts", asked, samples=work.settings.verdict_samples, **AS_THE_MODEL_IS)
    return {row_id: {number: said[id_] for number, id_ in of_row.items()} for row_id, of_row in ids.items()}


def _own_questions(work: Work) -> Path:
    """The file of questions that the policy writes about the images of the rows, filtered by `make synthesize`."""
    settings = work.policy.settings
    keys = {
        "model": settings.model,
        "data": str(work.file),
        "output": str(work.folder / "questions"),
        "name": "train",
        "seed": work.seed,
        "device": settings.device,
        "dtype": settings.dtype,
    }
    overrides = [*OWN_QUESTIONS, *work.settings.synthesis, *(as_override(name, value) for name, value in keys.items())]
    return synthesize(load_config(overrides))


def _lines(prompts: str) -> list[str]:
    return [line for line in map(str.strip, prompts.splitlines()) if line]
