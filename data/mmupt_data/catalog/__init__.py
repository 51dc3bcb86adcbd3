"""Data sets other than benchmarks. To add a data set, add a module that registers it; see docs/extending.md.

`mmupt.datasets` lists these and the benchmarks together.
"""

from mmupt_data.data_set import DataSet
from verl_ext.registry import Registry

DATA_SETS: Registry[DataSet] = Registry("data set", "mmupt_data.catalog")
