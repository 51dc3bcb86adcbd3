"""Detects collapse: the policy agrees with itself more and more while its held-out accuracy falls.

`rule.py` decides, `history.py` stores the data for the decision, and `alarm.py` acts on it. Imports no veRL.
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
