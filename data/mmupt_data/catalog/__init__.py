"""The data sets that are no benchmarks. A new one is a module here that registers it; see docs/extending.md.

`mmupt.datasets` lists these and the benchmarks together.
"""

from pathlib import Path
from typing import Protocol

from mmupt_data.writer import BadRows
from verl_ext.registry import Registry


class DataSet(Protocol):
    """What a data set can do."""

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


DATA_SETS: Registry[DataSet] = Registry("data set", "mmupt_data.catalog")
