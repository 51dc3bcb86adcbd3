"""Every data set by its name: those of `mmupt_data.catalog` and those of the benchmarks."""

from mmupt.benchmarks import BENCHMARKS
from mmupt_data.catalog import DATA_SETS
from mmupt_data.data_set import DataSet


def data_sets() -> dict[str, DataSet]:
    """Every data set by its name, sorted."""
    found = {**DATA_SETS, **{name: benchmark.data for name, benchmark in BENCHMARKS.items()}}
    return dict(sorted(found.items()))


def data_set(name: str) -> DataSet:
    """The data set of that name; ValueError with the known names if there is none."""
    known = data_sets()
    if name not in known:
        raise ValueError(f"there is no data set {name!r}; known data sets: {', '.join(known)}")
    return known[name]
