"""Geometry3K: questions about textbook drawings, 2.1k to train on; the paper's first training set."""

from mmupt_data.catalog import DATA_SETS
from mmupt_data.hub import PROBLEMS, HubDataset, HubSplit, Licence

DATA_SETS.register(
    HubDataset(
        name="geometry3k",
        summary="Geometry3K, 2.1k / 300 / 601 questions about textbook drawings",
        path="hiyouga/geometry3k",
        splits={
            "train": HubSplit("train", training=True, rows=2101),
            "validation": HubSplit("validation", rows=300),
            "test": HubSplit("test", rows=601),
        },
        layouts=(PROBLEMS,),
        licence=Licence("MIT", "https://huggingface.co/datasets/hiyouga/geometry3k"),
    )
)
