"""Geometry3K: questions about textbook drawings, 2.1k to train on; the paper's first training set."""

from data.hub import PROBLEMS, HubDataset

DATASETS = (
    HubDataset(
        name="geometry3k",
        summary="Geometry3K, 2.1k / 300 / 601 questions about textbook drawings",
        path="hiyouga/geometry3k",
        splits={"train": "train", "validation": "validation", "test": "test"},
        layouts=(PROBLEMS,),
    ),
)
