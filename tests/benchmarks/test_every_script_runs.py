"""Every script under benchmarks/ has a test that runs it."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Run by step_cost.py and by gpu/full_stack.py.
RUN_BY_ANOTHER = {"trl_grpo.py", "random_model.py"}
SCRIPTS = [
    file
    for file in sorted((ROOT / "benchmarks").rglob("*.py"))
    if "__main__" in file.read_text() and file.name not in RUN_BY_ANOTHER
]
TESTS = "".join(file.read_text() for file in Path(__file__).parent.glob("*.py") if file != Path(__file__))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda file: file.name)
def test_a_test_runs_every_script(script: Path) -> None:
    assert f'"{script.name}"' in TESTS or re.search(rf"from benchmarks\S* import .*\b{script.stem}\b", TESTS)
