"""The base class of data sets; each subclass defines how its files are written."""

from abc import ABC, abstractmethod
from pathlib import Path

from mmupt_data.writer import BadRows, WriteOptions


class DataSet(ABC):
    """A data set that `mmupt data` prepares.

    Attributes:
        name: the name of its folder, and the `data_source` of its rows.
        summary: one line for the list of data sets.
    """

    name: str
    summary: str

    def prepare(
        self,
        folder: Path,
        source: str | None = None,
        revision: str | None = None,
        bad_rows: BadRows = "drop",
        workers: int | None = None,
        progress: bool = False,
    ) -> bool:
        """Write the files into a folder unless they exist, and return whether any was written.

        Args:
            source: another hub repository, a local copy of one, or, for a set with one split, a parquet file. None for
                the source of the files in the folder, or else the data set's own.
            revision: the revision of a hub repository; None for the newest when the files are made.
            bad_rows, workers, progress: see `mmupt_data.writer.WriteOptions`.

        Raises:
            ValueError: the source cannot be used; its subclasses in `mmupt_data.hub` say why.
            FileNotFoundError: a local source does not exist.
            ConnectionError: the hub cannot be reached; the message says how to do without it.
            BadRowError: see `mmupt_data.writer.write_dataset`.
        """
        return self.write(folder, source, revision, WriteOptions(bad_rows, workers, progress))

    @abstractmethod
    def write(self, folder: Path, source: str | None, revision: str | None, options: WriteOptions) -> bool:
        """Implements `prepare`."""
