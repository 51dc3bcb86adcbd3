"""Rewards for the responses to a prompt: one class per file, registered under the name that a recipe selects.

Importing this package imports every module in it, so a new file needs no entry in a list. Pure: imports no veRL;
`verl_ext.rollout.reward_manager` runs the rewards inside veRL's reward workers.
"""

from importlib import import_module
from pkgutil import iter_modules

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
