"""`rejection_sft`, the control with labels: fine-tuning on the responses that match the ground truth."""

from collections.abc import Iterator

from mmupt.baseline_settings import BASELINES, Baseline, BaselineStage
from mmupt.baselines.selection import right
from mmupt.baselines.stage_context import StageContext, training_examples
from mmupt.baselines.training_sets import TrainingExample
from verl_ext.datasets.ground_truth import read_truth


def labelled_responses(context: StageContext) -> Iterator[TrainingExample]:
    """Select the responses that match the ground truth."""
    truths = read_truth(context.train_files)
    groups = context.policy.samples("samples", context.rows)
    for row in context.rows:
        kept = right(groups[row.id], truths.get(row.id), context.answers.comparison, row.choices)
        yield from training_examples(context, row, kept)


BASELINES.register(Baseline("rejection_sft", (BaselineStage("sft", labelled_responses),), supervised=True))
