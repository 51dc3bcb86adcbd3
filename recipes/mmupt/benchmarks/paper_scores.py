"""Reads the paper's results from `paper.yaml`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import OmegaConf

FILE = Path(__file__).with_name("paper.yaml")


@dataclass(frozen=True)
class PaperRow:
    """A row of the paper in percent. `scores` are in the order of `Paper.titles`, None if unknown."""

    method: str
    trained_on: str
    average: float
    scores: Sequence[float] | None = None

    @property
    def name(self) -> str:
        """The method and its training set."""
        return f"{self.method} ({self.trained_on})" if self.trained_on else self.method


@dataclass(frozen=True)
class Paper:
    """The paper's table: its `titles` of the benchmarks, the numbers of `questions` by benchmark, and the rows.

    `base` and `headline` have all scores.
    """

    source: str
    titles: dict[str, str]
    questions: dict[str, int]
    rows: tuple[PaperRow, ...]

    @property
    def base(self) -> PaperRow:
        """The untrained model that all other rows start from."""
        return self.rows[0]

    @property
    def headline(self) -> PaperRow:
        """MM-UPT trained on the training set of the released checkpoint."""
        return self.rows[1]


def read_paper() -> Paper:
    """Read `paper.yaml`."""
    content = OmegaConf.to_object(OmegaConf.load(FILE))
    assert isinstance(content, dict)
    benchmarks = content["benchmarks"]
    return Paper(
        content["source"],
        {name: benchmark["title"] for name, benchmark in benchmarks.items()},
        {name: benchmark["questions"] for name, benchmark in benchmarks.items()},
        tuple(PaperRow(**row) for row in content["rows"]),
    )
