"""`lmsi`: fine-tuning on the responses that agree with a large majority (docs/papers.md)."""

from collections.abc import Iterator

from mmupt.baseline_settings import BASELINES, Baseline, BaselineStage
from mmupt.baselines.selection import agreeing
from mmupt.baselines.stage_context import StageContext, training_examples
from mmupt.baselines.training_sets import TrainingExample


def majority_responses(context: StageContext) -> Iterator[TrainingExample]:
    """Select the responses that agree with a sufficiently large majority."""
    groups = context.policy.samples("samples", context.rows)
    for row in context.rows:
        kept = agreeing(groups[row.id], context.answers.vote_options, context.answers.comparison, row.choices)
        yield from training_examples(context, row, kept)


BASELINES.register(Baseline("lmsi", (BaselineStage("sft", majority_responses),)))
