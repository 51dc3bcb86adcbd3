"""What is built, and what is installed of it: files, metadata, and commands that run in any working directory.

Its folders may have the names of ours and of libraries.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from email.parser import HeaderParser
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
UV = (sys.executable, "-m", "uv")
PACKAGES = {"verl_ext": "verl_ext", "mmupt": "recipes/mmupt", "mmupt_data": "data/mmupt_data"}
# A folder `mmupt` or `verl_ext` of one's own is no package: with an __init__.py it would be another program.
PACKAGES_OF_THE_USER = ("data", "recipes", "datasets", "benchmarks", "tests", "hydra", "verl")
FOLDERS_OF_THE_USER = ("mmupt", "mmupt_data", "verl_ext")


def run(*command: object, **options: Any) -> subprocess.CompletedProcess[str]:
    ran = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, **options)
    assert ran.returncode == 0, f"{ran.stdout}\n{ran.stderr}"
    return ran


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built as pip builds it for whoever gets the source distribution alone."""
    folder = tmp_path_factory.mktemp("distribution")
    hatchling = [sys.executable, "-m", "hatchling", "build", "-d", folder]
    run(*hatchling, "-t", "sdist", cwd=ROOT)
    (archive,) = folder.glob("*.tar.gz")
    shutil.unpack_archive(archive, folder)
    run(*hatchling, "-t", "wheel", cwd=folder / archive.name.removesuffix(".tar.gz"))
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the wheel installs, without dependencies."""
    folder = tmp_path_factory.mktemp("installation")
    options = ["--quiet", "--offline", "--no-deps", "--python", sys.executable, "--target", folder]
    run(*UV, "pip", "install", *options, wheel)
    return folder


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


def test_the_wheel_has_every_file_of_the_packages(wheel: Path) -> None:
    files = {
        str(Path(package, path.relative_to(ROOT / folder)))
        for package, folder in PACKAGES.items()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    shipped = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert {f"mmupt/tiny/{folder}/model.safetensors" for folder in ("model", "hard_model")} <= files
    assert shipped == files


def test_the_metadata_say_what_it_is_for_whom_and_what_it_needs(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as opened:
        (name,) = (name for name in opened.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = HeaderParser().parsestr(opened.read(name).decode())
    assert metadata["License-Expression"] == "Apache-2.0" and metadata["Keywords"] and metadata.get_all("Project-URL")
    supported = {match[1] for one in metadata.get_all("Classifier", []) if (match := re.search(r":: (3\.\d+)$", one))}
    assert metadata["Requires-Python"] == "<3.13,>=3.10" and supported == {"3.10", "3.11", "3.12"}
    extras = set(metadata.get_all("Provides-Extra", []))
    readme = (ROOT / "README.md").read_text()
    assert extras and all(f"`{extra.replace('-', '_')}`" in readme for extra in extras)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment of its own with veRL and all that it is locked with, as somebody has it who trains with veRL."""
    folder = tmp_path_factory.mktemp("environment")
    python = folder / "bin" / "python"
    run(*UV, "venv", "--quiet", "--clear", "--python", sys.executable, folder)
    install = [*UV, "pip", "install", "--quiet", "--no-deps", "--python", python]
    locked = [*install, "-r", ROOT / "requirements-cpu.txt"]
    # Hard links into uv's cache, which `make setup` has filled: nothing is asked of an index but where it was emptied.
    if subprocess.run([*map(str, locked), "--offline"], capture_output=True, check=False).returncode != 0:
        run(*locked)
    run(*install, ROOT / "shims" / "vllm")
    return folder


@pytest.mark.full_stack
def test_the_wheel_installs_beside_verl_and_runs_in_any_folder(
    environment: Path, wheel: Path, hostile: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """With its requirements, which are all met: nothing else is installed or changed, and no checkout is looked at."""
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    python, mmupt = environment / "bin" / "python", environment / "bin" / "mmupt"
    done = run(*UV, "pip", "install", "--offline", "--python", python, wheel)
    changes = [line.split()[1] for line in done.stderr.splitlines() if line.startswith((" + ", " - ", " ~ "))]
    assert [change.partition("==")[0] for change in changes] == ["verl-mmupt"]
    # Its status may be 1: in this folder, modules hide libraries from Ray's workers.
    asked = subprocess.run([mmupt, "doctor", "--json"], cwd=hostile, env=clean, capture_output=True, text=True)
    findings = {finding["check"]: finding for finding in json.loads(asked.stdout)["findings"]}
    assert str(environment) in findings["verl-mmupt"]["found"]
    for check in ("verl-mmupt", "verl", "torch", "vllm", "transformers", "ray", "verl.plugins", "vllm.general_plugins"):
        assert findings[check]["status"] == "ok", findings[check]
    assert findings["working directory"]["status"] == "problem"
    assert "mmupt_tiny_hard" in run(mmupt, "recipes", cwd=hostile, env=clean).stdout
    assert "#compdef mmupt" in run(mmupt, "completion", "zsh", cwd=hostile, env=clean).stdout
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    said = run(mmupt, "data", "figures", cwd=elsewhere, env=clean).stdout
    assert "datasets/figures: written" in said
    assert {"train.parquet", "test.parquet"} <= {file.name for file in (elsewhere / "datasets" / "figures").iterdir()}
