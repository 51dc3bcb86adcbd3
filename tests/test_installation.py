"""The built and the installed package: files, metadata, and commands in any working directory.

The working directory may have folders with the names of our packages and of libraries.
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
# A user's folder `mmupt` or `verl_ext` has no __init__.py: as a package, it would be another program.
PACKAGES_OF_THE_USER = ("data", "recipes", "datasets", "benchmarks", "tests", "hydra", "verl")
FOLDERS_OF_THE_USER = ("mmupt", "mmupt_data", "verl_ext")


def run(*command: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command, which must succeed."""
    result = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, **options)
    assert result.returncode == 0, f"{result.stdout}\n{result.stderr}"
    return result


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the source distribution as pip does."""
    folder = tmp_path_factory.mktemp("distribution")
    hatchling = [sys.executable, "-m", "hatchling", "build", "-d", folder]
    run(*hatchling, "-t", "sdist", cwd=ROOT)
    (archive,) = folder.glob("*.tar.gz")
    shutil.unpack_archive(archive, folder)
    run(*hatchling, "-t", "wheel", cwd=folder / archive.name.removesuffix(".tar.gz"))
    (file,) = folder.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel installed, without dependencies."""
    folder = tmp_path_factory.mktemp("installation")
    options = ["--quiet", "--offline", "--no-deps", "--python", sys.executable, "--target", folder]
    run(*UV, "pip", "install", *options, wheel)
    return folder


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A working directory whose folders fail if they are imported."""
    for name in PACKAGES_OF_THE_USER:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"raise ImportError('{name} of the working directory')\n")
    for name in FOLDERS_OF_THE_USER:
        (tmp_path / name).mkdir()
        for module in ("cli", "catalog", "plugin"):
            (tmp_path / name / f"{module}.py").write_text(f"raise ImportError('{name} of the working directory')\n")
    return tmp_path


def test_an_installation_has_only_our_three_packages_and_the_command(installed: Path) -> None:
    names = {path.name for path in installed.iterdir() if not path.name.endswith(".dist-info")}
    assert names - {".lock"} == {*PACKAGES, "bin"}
    assert [path.name for path in (installed / "bin").iterdir()] == ["mmupt"]


@pytest.mark.parametrize(
    ("command", "output"),
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
    installed: Path, hostile: Path, command: str, output: str
) -> None:
    programs = {"mmupt": installed / "bin" / "mmupt", "python": sys.executable}
    program, *words = command.split()
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    result = subprocess.run(
        [programs[program], *words], cwd=hostile, env=environment, capture_output=True, text=True, check=False
    )
    assert output in result.stdout + result.stderr
    assert "Traceback" not in result.stderr


def test_commands_import_the_installation(installed: Path, hostile: Path) -> None:
    """The tests above ran the installation, not this checkout."""
    script = "import sys; sys.path.pop(0); import mmupt.cli, mmupt_data, verl_ext; print(mmupt.cli.__file__)"
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    command = [sys.executable, "-c", script]
    result = subprocess.run(command, cwd=hostile, env=environment, capture_output=True, text=True)
    assert result.stdout.strip() == str(installed / "mmupt" / "cli.py")


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


def test_metadata_have_license_keywords_links_pythons_and_documented_extras(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as opened:
        (name,) = (name for name in opened.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = HeaderParser().parsestr(opened.read(name).decode())
    assert metadata["License-Expression"] == "Apache-2.0" and metadata["Keywords"] and metadata.get_all("Project-URL")
    classifiers = metadata.get_all("Classifier", [])
    supported = {match[1] for text in classifiers if (match := re.search(r":: (3\.\d+)$", text))}
    assert metadata["Requires-Python"] == "<3.13,>=3.10" and supported == {"3.10", "3.11", "3.12"}
    extras = set(metadata.get_all("Provides-Extra", []))
    readme = (ROOT / "README.md").read_text()
    assert extras and all(f"`{extra.replace('-', '_')}`" in readme for extra in extras)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with veRL and all locked requirements, like a veRL user's."""
    folder = tmp_path_factory.mktemp("environment")
    python = folder / "bin" / "python"
    run(*UV, "venv", "--quiet", "--clear", "--python", sys.executable, folder)
    install = [*UV, "pip", "install", "--quiet", "--no-deps", "--python", python]
    locked = [*install, "-r", ROOT / "requirements-cpu.txt"]
    # `make setup` has filled uv's cache; an index is needed only if the cache was emptied.
    if subprocess.run([*map(str, locked), "--offline"], capture_output=True, check=False).returncode != 0:
        run(*locked)
    run(*install, ROOT / "shims" / "vllm")
    return folder


@pytest.mark.full_stack
def test_the_wheel_installs_beside_verl_and_runs_in_any_folder(
    environment: Path, wheel: Path, hostile: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Its requirements are already met, so nothing else is installed or changed; the checkout is not used."""
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    python, mmupt = environment / "bin" / "python", environment / "bin" / "mmupt"
    installation = run(*UV, "pip", "install", "--offline", "--python", python, wheel)
    changes = [line.split()[1] for line in installation.stderr.splitlines() if line.startswith((" + ", " - ", " ~ "))]
    assert [change.partition("==")[0] for change in changes] == ["verl-mmupt"]
    # The status may be 1: folders of this working directory hide libraries from Ray's workers.
    doctor = subprocess.run([mmupt, "doctor", "--json"], cwd=hostile, env=clean, capture_output=True, text=True)
    findings = {finding["check"]: finding for finding in json.loads(doctor.stdout)["findings"]}
    assert str(environment) in findings["verl-mmupt"]["found"]
    for check in ("verl-mmupt", "verl", "torch", "vllm", "transformers", "ray", "verl.plugins", "vllm.general_plugins"):
        assert findings[check]["status"] == "ok", findings[check]
    assert findings["working directory"]["status"] == "problem"
    assert "mmupt_tiny_hard" in run(mmupt, "recipes", cwd=hostile, env=clean).stdout
    assert "#compdef mmupt" in run(mmupt, "completion", "zsh", cwd=hostile, env=clean).stdout
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    output = run(mmupt, "data", "figures", cwd=elsewhere, env=clean).stdout
    assert "datasets/figures: written" in output
    assert {"train.parquet", "test.parquet"} <= {file.name for file in (elsewhere / "datasets" / "figures").iterdir()}
