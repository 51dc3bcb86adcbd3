"""MMR1-Math: questions about figures, charts and photographs; the training set of the paper's released model.

No recipe uses its `validation` split, so a copy without it is enough.
"""

from mmupt_data.catalog import DATA_SETS
from mmupt_data.hub import PROBLEMS, HubDataset, HubSplit

DATA_SETS.register(
    HubDataset(
        name="mmr1",
        summary="MMR1-Math-RL-Data-v0, 6k questions about figures of all kinds",
        path="MMR1/MMR1-Math-RL-Data-v0",
        splits={"train": HubSplit("train", training=True), "validation": HubSplit("validation", optional=True)},
        layouts=(PROBLEMS,),
    )
)
