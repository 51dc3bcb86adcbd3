"""The failure case of the laptop task: a question about bars that the tiny model was never taught."""

from mmupt_data.catalog import DATA_SETS
from mmupt_data.figure_task import FigureDataset

DATA_SETS.register(
    FigureDataset(
        "figures_unseen", "failure case of the laptop task: a question that the tiny model was never taught", "unseen"
    )
)
