"""Notices that a run collapses: it agrees with itself ever more while it answers held-out questions worse.

The rule, what it is told, and what follows from it. Imports no veRL.
"""

from verl_ext.collapse.alarm import CollapseAlarm, StoppedOnCollapse, read_alarm, read_rule
from verl_ext.collapse.history import History
from verl_ext.collapse.rule import Collapse, CollapseRule, find_collapse

__all__ = [
    "Collapse",
    "CollapseAlarm",
    "CollapseRule",
    "History",
    "StoppedOnCollapse",
    "find_collapse",
    "read_alarm",
    "read_rule",
]
