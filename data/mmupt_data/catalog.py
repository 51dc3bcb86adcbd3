"""Every data set by its name. A new one is a module with `DATASETS`, named in `MODULES`."""

from importlib import import_module
from pathlib import Path
from typing import Protocol

from mmupt_data.writer import BadRows

MODULES = (
    "figure_task",
    "geometry3k",
    "geoqa",
    "mmr1",
    "published_synthetic",
    "thinklite",
    "mathvista",
    "mathvision",
    "mathverse",
    "wemath",
    "custom_images",
)


class DataSet(Protocol):
    """What a data set of this package can do."""

    @property
    def name(self) -> str:
        """Name of its folder, and `data_source` of its rows."""

    @property
    def summary(self) -> str:
        """One line that says what it is."""

    def prepare(
        self,
        folder: Path,
        source: str | None = None,
        revision: str | None = None,
        bad_rows: BadRows = "drop",
        workers: int | None = None,
        progress: bool = False,
    ) -> bool:
        """Write its files into a folder and return whether any was missing; see `mmupt_data.hub.HubDataset`."""


def data_sets() -> dict[str, DataSet]:
    """Every data set by its name, in the order of `MODULES`."""
    return {one.name: one for module in MODULES for one in import_module(f"mmupt_data.{module}").DATASETS}


def data_set(name: str) -> DataSet:
    """The data set of that name; ValueError lists the known ones."""
    known = data_sets()
    if name not in known:
        raise ValueError(f"there is no data set {name!r}; known data sets: {', '.join(known)}")
    return known[name]
