"""The examples in docstrings run as they are written."""

import doctest
from importlib import import_module
from pathlib import Path

import pytest

import verl_ext
from verl_ext.rewards.group_reward import REWARDS

ROOT = Path(verl_ext.__file__).parent
MODULES = [
    ".".join(file.relative_to(ROOT.parent).with_suffix("").parts)
    for file in sorted(ROOT.rglob("*.py"))
    if ">>> " in file.read_text()
]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_run(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Hide from other tests what an example registers.
    monkeypatch.setattr(REWARDS, "_entries", {**REWARDS})
    result = doctest.testmod(import_module(name))
    assert result.attempted and not result.failed


def test_the_base_class_of_rewards_has_an_example() -> None:
    assert "verl_ext.rewards.group_reward" in MODULES
