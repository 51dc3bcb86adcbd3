"""The commands of an installation, in a working directory whose folders have the names of ours and of libraries."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {"verl_ext": "verl_ext", "mmupt": "recipes/mmupt", "mmupt_data": "data/mmupt_data"}
# A folder `mmupt` or `verl_ext` of one's own is no package: with an __init__.py it would be another program.
PACKAGES_OF_THE_USER = ("data", "recipes", "datasets", "benchmarks", "tests", "hydra", "verl")
FOLDERS_OF_THE_USER = ("mmupt", "mmupt_data", "verl_ext")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what `pip install .` installs, without dependencies."""
    folder = tmp_path_factory.mktemp("installation")
    for source in PACKAGES.values():
        shutil.copytree(ROOT / source, folder / "source" / source, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", ".gitignore"):
        shutil.copy(ROOT / name, folder / "source")
    options = ["--quiet", "--offline", "--no-deps", "--no-build-isolation", "--python", sys.executable]
    command = [sys.executable, "-m", "uv", "pip", "install", *options, "--target", folder / "packages"]
    subprocess.run([*command, folder / "source"], check=True)
    return folder / "packages"


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    for name in PACKAGES_OF_THE_USER:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"raise ImportError('{name} of the working directory')\n")
    for name in FOLDERS_OF_THE_USER:
        (tmp_path / name).mkdir()
        for module in ("cli", "catalog", "plugin"):
            (tmp_path / name / f"{module}.py").write_text(f"raise ImportError('{name} of the working directory')\n")
    return tmp_path


def test_an_installation_has_our_three_packages_and_the_command_alone(installed: Path) -> None:
    names = {path.name for path in installed.iterdir() if not path.name.endswith(".dist-info")}
    assert names - {".lock"} == {*PACKAGES, "bin"}
    assert [path.name for path in (installed / "bin").iterdir()] == ["mmupt"]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("mmupt --help", "self-improve"),
        ("python -m mmupt --help", "self-improve"),
        ("mmupt recipes", "mmupt_tiny"),
        ("mmupt data --list", "geometry3k"),
        ("mmupt train mmupt_tiny trainer.lr=1", "there is no key 'trainer.lr'"),
        ("python -m mmupt memory mmupt_mathvista model=qwen2_5_vl_3b", "Estimate of GPU memory"),
        ("mmupt score --help", "--judge-url"),
        ("python -m mmupt eval model=nothing files={a:missing.parquet}", "missing.parquet is missing"),
        ("python -m mmupt synthesize model=nothing data=missing.parquet", "missing.parquet is missing"),
    ],
)
def test_a_command_runs_beside_folders_of_the_same_names(
    installed: Path, hostile: Path, command: str, said: str
) -> None:
    programs = {"mmupt": installed / "bin" / "mmupt", "python": sys.executable}
    program, *words = command.split()
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    result = subprocess.run(
        [programs[program], *words], cwd=hostile, env=environment, capture_output=True, text=True, check=False
    )
    assert said in result.stdout + result.stderr
    assert "Traceback" not in result.stderr


def test_the_commands_are_those_of_the_installation(installed: Path, hostile: Path) -> None:
    """What the tests above have run is what was installed, not this checkout."""
    script = "import sys; sys.path.pop(0); import mmupt.cli, mmupt_data, verl_ext; print(mmupt.cli.__file__)"
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    found = subprocess.run([sys.executable, "-c", script], cwd=hostile, env=environment, capture_output=True, text=True)
    assert found.stdout.strip() == str(installed / "mmupt" / "cli.py")
