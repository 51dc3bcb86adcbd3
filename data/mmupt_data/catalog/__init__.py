"""Data sets that are not benchmarks. To add one, put a module here that registers it; see docs/extending.md.

`mmupt.datasets` lists these and the benchmarks together.
"""

from mmupt_data.data_set import DataSet
from verl_ext.registry import Registry

DATA_SETS: Registry[DataSet] = Registry("data set", "mmupt_data.catalog")
