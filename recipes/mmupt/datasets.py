"""Finds data sets by name: the training sets of `mmupt_data.catalog` and the benchmarks."""

from mmupt.benchmarks import BENCHMARKS
from mmupt_data.catalog import DATA_SETS
from mmupt_data.data_set import DataSet


def data_sets() -> dict[str, DataSet]:
    """Return every data set by name, sorted."""
    found = {**DATA_SETS, **{name: benchmark.data for name, benchmark in BENCHMARKS.items()}}
    return dict(sorted(found.items()))


def data_set(name: str) -> DataSet:
    """Return the data set of a name; ValueError with the known names if it does not exist."""
    known = data_sets()
    if name not in known:
        raise ValueError(f"there is no data set {name!r}; known data sets: {', '.join(known)}")
    return known[name]
