"""Machine checks of `mmupt doctor`: cores, memory, disks and folders."""

import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from mmupt.hardware import ray_folder
from mmupt.runtime.doctor_findings import Finding
from mmupt.runtime.folder_checks import can_write, problems_of_sockets, problems_of_working_directory
from mmupt.runtime.model_checks import hub_cache

GIB = 2**30
# Requirements of the tiny recipes, as in the README.
CPUS, MEMORY = 2, 12 * GIB
# Disk space that `make setup` and a first run of a tiny recipe take.
DISK = 10 * GIB
# Ray's object store takes this share of the main memory. Its cap, the size of /dev/shm, is never below this many bytes;
# a store larger than /dev/shm is put on disk (ray/_private/utils.py, resolve_object_store_memory; services.py,
# determine_plasma_store_config).
OBJECT_STORE_SHARE, MIN_OBJECT_STORE_CAP = 0.3, 10**10
# Docker's default is 64 MB.
MIN_SHARED_MEMORY = GIB
# Ray spills no objects to a disk that is fuller than this (local_fs_capacity_threshold).
FULL_DISK = 0.95


@dataclass(frozen=True)
class Space:
    """Size of a file system or of the main memory, in bytes."""

    total: int
    free: int


def usable_cpus(cgroup: Path = Path("/sys/fs/cgroup")) -> float:
    """Return how many cores this process may use, given its affinity and its container's limit."""
    cores = float(len(os.sched_getaffinity(0)))
    quota, _, period = read_text(cgroup / "cpu.max").partition(" ")
    return min(cores, int(quota) / int(period)) if quota.isdecimal() and period.isdecimal() else cores


def check_cpus(cores: float) -> Iterator[Finding]:
    """Check the number of cores."""
    found = f"{cores:g} core{'' if cores == 1 else 's'}"
    if cores < CPUS:
        yield Finding(
            "CPU", "warning", found, f"the tiny recipes need {CPUS}: give the container more, or they take hours"
        )
    else:
        yield Finding("CPU", "ok", found)


def main_memory(cgroup: Path = Path("/sys/fs/cgroup")) -> Space:
    """Return the main memory, bounded by the limit of the container if it has one."""
    machine = psutil.virtual_memory()
    limits = {"memory.max": "memory.current", "memory/memory.limit_in_bytes": "memory/memory.usage_in_bytes"}
    for limit, usage in limits.items():
        if (text := read_text(cgroup / limit)).isdecimal() and int(text) < machine.total:
            used = read_text(cgroup / usage)
            free = int(text) - (int(used) if used.isdecimal() else 0)
            return Space(int(text), min(free, machine.available))
    return Space(machine.total, machine.available)


def check_memory(memory: Space) -> Iterator[Finding]:
    """Check the main memory."""
    found = _of(memory)
    if memory.free < MEMORY:
        fix = f"a tiny recipe needs {MEMORY // GIB} GiB: close other programs; `mmupt memory` estimates other recipes"
        yield Finding("main memory", "warning", found, fix)
    else:
        yield Finding("main memory", "ok", found)


def check_shared_memory(space: Space, memory: int) -> Iterator[Finding]:
    """Check /dev/shm, through which Ray, veRL and vLLM exchange tensors; `memory` is the main memory in bytes."""
    found = f"{_of(space)} in /dev/shm"
    grow = "docker run --shm-size=16g (or --ipc=host); elsewhere mount -o remount,size=16g /dev/shm"
    if space.total < MIN_SHARED_MEMORY:
        yield Finding("shared memory", "problem", found, grow)
    elif space.free < min(OBJECT_STORE_SHARE * memory, MIN_OBJECT_STORE_CAP):
        yield Finding(
            "shared memory",
            "warning",
            f"{found}: Ray keeps its objects on disk",
            f"remove files that dead runs left there, or {grow}",
        )
    else:
        yield Finding("shared memory", "ok", found)


def check_disk(check: str, folder: Path, space: Space) -> Iterator[Finding]:
    """Check that a folder is writable and has enough free space."""
    found = f"{_of(space)} in {folder}"
    if not can_write(folder):
        yield Finding(check, "problem", f"{folder} is not writable", "choose another folder: mmupt.run_folder=...")
    elif space.free < GIB:
        yield Finding(check, "problem", found, "remove old checkpoints, or choose another folder: mmupt.run_folder=...")
    elif space.free < DISK:
        yield Finding(check, "warning", found, "checkpoints may fill it: remove old ones, or choose another folder")
    else:
        yield Finding(check, "ok", found)


def check_ray_disk(folder: Path) -> Iterator[Finding]:
    """Check that the disk of Ray's folder is not too full for Ray to spill objects."""
    space = space_of(folder)
    if space.free < (1 - FULL_DISK) * space.total:
        yield Finding(
            "disk of Ray",
            "warning",
            f"{folder} is on a disk that is more than {FULL_DISK:.0%} full, where Ray spills no objects",
            "remove files, or set RAY_TMPDIR to a folder of another disk",
        )


def check_paths(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Check the folders of sockets and downloads, and the working directory, as a run does."""
    checked = {
        "sockets": (f"can be created in {ray_folder()}", list(problems_of_sockets(environ))),
        "working directory": (f"{Path.cwd()}", list(problems_of_working_directory())),
    }
    for check, (found, problems) in checked.items():
        yield from [Finding(check, "problem", problem) for problem in problems] or [Finding(check, "ok", found)]
    cache = hub_cache(environ)
    if can_write(cache):
        yield Finding("hub cache", "ok", f"{cache}")
    else:
        yield Finding("hub cache", "warning", f"{cache} is not writable", "set HF_HOME to a writable folder")


def nearest_folder(folder: Path) -> Path:
    """Return the folder, or its nearest parent that exists."""
    folder = folder.absolute()
    while not folder.is_dir():
        folder = folder.parent
    return folder


def space_of(folder: Path) -> Space:
    if not folder.is_dir():
        return Space(0, 0)
    usage = shutil.disk_usage(folder)
    return Space(usage.total, usage.free)


def _of(space: Space) -> str:
    return f"{space.free / GIB:.1f} of {space.total / GIB:.1f} GiB free"


def read_text(file: Path) -> str:
    """Read a small file, stripped; empty if it cannot be read."""
    try:
        return file.read_text().strip()
    except OSError:
        return ""
