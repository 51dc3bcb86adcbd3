"""The plugin is loaded by veRL itself, lightly, says so, and fails loudly where it does not fit."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from verl_ext import patches
from verl_ext.patches import PATCHES, Patch


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)


IMPORT_VERL = """
import os, sys, verl
from verl.plugin.platform.platform_manager import _detect_platform_name as detect
from verl.utils.device import get_device_name
print(get_device_name())
heavy = ("vllm", "mmupt", "verl_ext.rewards", "verl.experimental.reward_loop", "verl.workers")
print([name for name in heavy if name in sys.modules])
os.environ["VERL_PLATFORM"] = ""
print(detect())
"""


@pytest.fixture(scope="module")
def imported() -> subprocess.CompletedProcess[str]:
    """A process that has imported veRL on the CPU."""
    return python(IMPORT_VERL)


def test_importing_verl_activates_the_plugin_without_vllm_or_recipes_and_logs_one_line(
    imported: subprocess.CompletedProcess[str],
) -> None:
    assert imported.stdout.splitlines()[:2] == ["cpu", "[]"]
    (line,) = [line for line in imported.stderr.splitlines() if "verl_ext" in line]
    assert "verl_ext is active" in line and "verl_ext.rewards" in line
    assert all(patch.name in line for patch in PATCHES)


def test_the_cpu_platform_is_used_only_on_request(imported: subprocess.CompletedProcess[str]) -> None:
    assert imported.stdout.split()[-1] in ("nvidia", "rocm", "npu")


@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.name)
def test_a_patch_refuses_any_version_but_its_own(patch: Patch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patches, "version", lambda distribution: "0.9.2")
    with pytest.raises(RuntimeError, match=f"patch '{patch.name}' is written for verl 0.9.1, but 0.9.2 is installed"):
        patch.apply(sys)


def test_a_plugin_that_does_not_fit_logs_the_error_that_verl_hides() -> None:
    result = python("import verl_ext.patches as p; p.VERL = '0.0.0'; import verl, verl.utils.tensordict_utils")
    assert "verl_ext is NOT active" in result.stderr and "written for verl 0.0.0" in result.stderr


UPGRADING = Path("docs/upgrading.md").read_text()


def rows(heading: str) -> list[list[str]]:
    """The cells of the table below a heading of docs/upgrading.md."""
    section = UPGRADING.split(f"## {heading}\n")[1].split("\n## ")[0]
    return [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")][1:]


def test_the_documentation_of_patches_matches_their_table_and_files() -> None:
    documented = {row[0][1 : -len(".py`")]: set(re.findall(r"`([^`]+)`", row[1])) for row in rows("Patches")}
    changed: dict[str, set[str]] = {}
    for patch in PATCHES:
        changed.setdefault(patch.name, set()).add(f"{patch.module}.{patch.function}")
    files = {file.stem for file in Path(patches.__file__).parent.glob("*.py")} - {"__init__"}
    assert set(documented) == files
    assert {name: functions for name, functions in documented.items() if not name.startswith("vllm_cpu")} == changed
    tests = {file.name for file in Path("tests").rglob("test_*.py")}
    assert {test for row in rows("Patches") for test in re.findall(r"`(test_\w+\.py)`", row[3])} <= tests


def test_private_names_are_used_in_the_files_that_the_documentation_lists() -> None:
    for row in rows("Private or undocumented names in use"):
        files = re.findall(r"`([\w/]+\.py)`", row[1])
        used = "".join(Path("" if file.startswith("recipes/") else "verl_ext", file).read_text() for file in files)
        names = {word for quoted in re.findall(r"`([^`]+)`", row[0]) for word in re.findall(r"\w{3,}", quoted)}
        assert not files or any(name in used for name in names), row[:2]
