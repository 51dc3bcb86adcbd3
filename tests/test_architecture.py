"""The import contracts of pyproject.toml hold and detect violations; docs/architecture.md has the current diagram."""

import ast
import importlib.util
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = {"verl_ext": "verl_ext", "mmupt": "recipes/mmupt", "mmupt_data": "data/mmupt_data"}


def _lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(str((folder / package).parent) for package in PACKAGES.values())
    return subprocess.run(
        [
            sys.executable,
            "-c",
            "from importlinter.cli import lint_imports_command; lint_imports_command()",
            "--no-cache",
        ],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A folder with copies of the three packages' Python files and of the contracts."""
    for package in PACKAGES.values():
        for file in (ROOT / package).rglob("*.py"):
            target = tmp_path / file.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_imports_keep_the_contracts() -> None:
    result = _lint_imports(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("verl_ext/votes/majority.py", "import mmupt.hardware"),
        ("verl_ext/images.py", "from mmupt_data import row_schema"),
        ("data/mmupt_data/hub.py", "from mmupt.evaluation import response_files"),
        ("verl_ext/votes/majority.py", "import torch"),
        ("recipes/mmupt/benchmarks/wemath.py", "from mmupt.evaluation import generation"),  # imports Ray and vLLM
        ("data/mmupt_data/row_schema.py", "from mmupt_data import hub"),  # imports row_schema
    ],
)
def test_a_forbidden_import_breaks_a_contract(copy: Path, file: str, line: str) -> None:
    with (copy / file).open("a") as opened:
        opened.write(f"\n{line}\n")
    result = _lint_imports(copy)
    assert result.returncode == 1, result.stdout + result.stderr
    assert "1 broken" in result.stdout or "2 broken" in result.stdout


@pytest.fixture(scope="module")
def drawing() -> ModuleType:
    """scripts/draw_architecture.py as a module."""
    spec = importlib.util.spec_from_file_location("draw_architecture", ROOT / "scripts" / "draw_architecture.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_has_the_diagram_that_the_script_draws(drawing: ModuleType) -> None:
    page = drawing.PAGE.read_text()
    assert drawing.drawn(page) == page, "run scripts/draw_architecture.py"


def test_arrows_implied_by_others_are_omitted(drawing: ModuleType) -> None:
    edges = {"a": {"b", "c", "d"}, "b": {"c"}, "c": {"d"}, "d": set()}
    assert drawing.without_shortcuts(edges) == {"a": {"b"}, "b": {"c"}, "c": {"d"}, "d": set()}


def test_names_of_files_and_public_classes_are_unique() -> None:
    sources = [file for folder in ("verl_ext", "recipes", "data") for file in (ROOT / folder).rglob("*.py")]
    # The file of a command is named after the command, which may share the name of the module that it runs.
    files = Counter(file.name for file in sources if file.parent.name != "commands")
    classes = Counter(
        node.name
        for file in sources
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert {name for name, count in files.items() if count > 1} == {"__init__.py"}
    assert {name for name, count in classes.items() if count > 1} == set()
