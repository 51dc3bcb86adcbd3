"""The laptop task of `mmupt_data.figure_task` as data sets, one for each question that is asked about the figures."""

from dataclasses import dataclass
from pathlib import Path

from mmupt_data import figure_task
from mmupt_data.catalog import DATA_SETS
from mmupt_data.writer import BadRows


@dataclass(frozen=True)
class FigureDataset:
    """The questions of one role as a data set, see `mmupt_data.catalog.DataSet`; it is drawn, and has no source."""

    name: str
    summary: str
    role: figure_task.Role

    def prepare(
        self,
        folder: Path,
        source: str | None = None,
        revision: str | None = None,
        bad_rows: BadRows = "stop",
        workers: int | None = None,
        progress: bool = False,
    ) -> bool:
        """Write the data set in its usual size. Raises ValueError for a source or revision: figures have none."""
        if source or revision:
            raise ValueError(f"{self.name} is drawn here: it has neither SOURCE nor REVISION")
        return figure_task.write_figures(folder, role=self.role)


FIGURES = DATA_SETS.register(
    FigureDataset("figures", "the laptop task: lengths and areas of small figures, drawn here", "main")
)
DATA_SETS.register(
    FigureDataset(
        "figures_unseen", "its failure case: a question about bars that the tiny model was never taught", "unseen"
    )
)
