"""`srlm`: DPO on pairs that the policy itself judges (docs/papers.md)."""

from collections.abc import Iterator

from mmupt.baseline_settings import ABOUT_A_RESPONSE, BASELINES, Baseline, BaselineStage
from mmupt.baselines.selection import best_and_worst, mean_points, share_of_yes
from mmupt.baselines.stage_context import StageContext, training_examples, verdicts
from mmupt.baselines.training_sets import TrainingExample


def judged_pairs(context: StageContext) -> Iterator[TrainingExample]:
    """Pair the responses of each group that the policy itself scores highest and lowest."""
    groups = context.policy.samples("samples", context.rows)
    replies_to = verdicts(context, context.rows, groups, context.settings.prompts["judge"])
    score = mean_points if context.settings.judge_scale == "points" else share_of_yes
    for row in context.rows:
        pair = best_and_worst(groups[row.id], {n: score(replies) for n, replies in replies_to[row.id].items()})
        if pair:
            yield from training_examples(context, row, [pair])


BASELINES.register(Baseline("srlm", (BaselineStage("dpo", judged_pairs),), {"judge": ABOUT_A_RESPONSE}))
