"""The failure case of the laptop task: a question about bars that the tiny model has never been taught to answer.

The figures and everything else about them are in `data.figures`.
"""

from pathlib import Path

from data import figures


def prepare(folder: Path) -> bool:
    """Write the data set of the unseen question; see `data.schema` for the files and for what is returned."""
    return figures.prepare(folder, role="unseen")
