"""`genixer`: fine-tuning on responses to the policy's own questions (docs/papers.md)."""

from collections.abc import Iterator
from pathlib import Path

from mmupt.baseline_settings import ABOUT_A_RESPONSE, BASELINES, Baseline, BaselineStage
from mmupt.baselines.prompt_rows import read_prompt_rows
from mmupt.baselines.selection import believed, share_of_yes
from mmupt.baselines.stage_context import StageContext, training_examples, verdicts
from mmupt.baselines.training_sets import TrainingExample
from mmupt.compose import as_override
from mmupt.evaluation.generation_settings import INPUT_FIELDS
from mmupt.synthesis.run_synthesis import load_synthesis_config, synthesize

# Questions are written from the images alone, so copies of existing questions do not matter. The self-check of the
# answers decides later whether a question can be answered.
OWN_QUESTIONS = (
    "strategies=[direct]",
    *(f"filters.{name}.enabled=false" for name in ("copy_of_parent", "self_check", "difficulty")),
)


def believed_responses(context: StageContext) -> Iterator[TrainingExample]:
    """Select the responses to the policy's own questions whose answers the policy affirms."""
    rows = read_prompt_rows(_own_questions(context), context.instruction)
    groups = context.policy.samples("samples", rows)
    replies_to = verdicts(context, rows, groups, context.settings.prompts["self_check"])
    for row in rows:
        yes = {number: share_of_yes(replies) for number, replies in replies_to[row.id].items()}
        yield from training_examples(context, row, believed(groups[row.id], yes, context.settings.min_yes))


def _own_questions(context: StageContext) -> Path:
    """Synthesize questions about the images of the rows and return their file."""
    settings = context.policy.settings
    # The inputs are those of training unless mmupt.baseline.synthesis overrides them.
    seen = [as_override(name, getattr(settings, name)) for name in INPUT_FIELDS]
    config = load_synthesis_config([*OWN_QUESTIONS, *seen, *context.settings.synthesis])
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


BASELINES.register(Baseline("genixer", (BaselineStage("sft", believed_responses),), {"self_check": ABOUT_A_RESPONSE}))
