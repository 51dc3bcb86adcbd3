"""MMR1-Math: questions about figures, charts and photographs; the training set of the paper's released model."""

from data.hub import PROBLEMS, HubDataset

DATASETS = (
    HubDataset(
        name="mmr1",
        summary="MMR1-Math-RL-Data-v0, 6k questions about figures of all kinds",
        path="MMR1/MMR1-Math-RL-Data-v0",
        splits={"train": "train"},
        layouts=(PROBLEMS,),
    ),
)
