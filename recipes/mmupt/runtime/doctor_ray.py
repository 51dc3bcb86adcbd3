"""Ray checks of `mmupt doctor`: the cluster that runs join, and leftovers of dead clusters."""

import os
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import psutil

from mmupt.hardware import joins_cluster, ray_address, ray_folder
from mmupt.runtime.doctor_findings import Finding
from mmupt.runtime.doctor_machine import GIB, read_text

# Size of dead sessions, in bytes, above which they are reported.
SESSIONS = GIB


def check_ray(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Check the cluster that runs join, and leftovers of dead clusters."""
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
    # The values are None for processes of other users.
    processes = list(psutil.process_iter(["cmdline", "environ", "memory_info"]))
    yield from check_sessions(ray_folder(), [" ".join(process.info["cmdline"] or ()) for process in processes])
    yield from check_orphans(list(filter(_is_orphan, processes)))


def check_current_cluster(folder: Path) -> Iterator[Finding]:
    """Check the file by which `ray start` announces its cluster, and which a killed Ray leaves behind."""
    file = folder / "ray_current_cluster"
    if not (address := read_text(file).strip()):
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
    """Return whether something listens at HOST:PORT; True for other addresses, such as `auto`."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        return True
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=seconds):
            return True
    except OSError:
        return False


def check_token(file: Path, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Check the file with the user's Ray token, which Ray requires from every program of a cluster."""
    if not file.exists():
        return
    generate = "remove it; `ray get-auth-token --generate` makes a new one"
    if not os.access(file, os.R_OK):
        yield Finding("Ray token", "problem", f"{file} cannot be read", generate)
    elif not read_text(file).strip():
        yield Finding("Ray token", "problem", f"{file} is empty", generate)
    elif joins_cluster() and not environ.get("RAY_AUTH_MODE"):
        yield Finding(
            "Ray token",
            "warning",
            f"{file} makes Ray ask for a token, even in a cluster that was started without one",
            "set RAY_AUTH_MODE and RAY_AUTH_TOKEN to the same values on all machines (examples/cluster.md)",
        )
    elif _is_open_to_others(file):
        yield Finding("Ray token", "warning", f"{file} can be read by other users", f"chmod 600 {file}")
    else:
        yield Finding("Ray token", "ok", f"{file}")


def _is_open_to_others(file: Path) -> bool:
    """Return whether other users can enter a file's folders and read the file."""
    return bool(file.stat().st_mode & 0o044) and all(folder.stat().st_mode & 0o011 for folder in file.parents)


def check_sessions(folder: Path, commands: Iterable[str]) -> Iterator[Finding]:
    """Check the disk usage of dead Ray sessions, which no running process has in its command line."""
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
    """Check for processes that outlived their Ray cluster."""
    if not orphans:
        return
    ids = " ".join(str(process.pid) for process in orphans)
    size = sum(process.info["memory_info"].rss for process in orphans)
    found = f"{len(orphans)} of dead clusters are alive and hold {size / GIB:.1f} GiB: {ids}"
    yield Finding("Ray processes", "warning", found, f"kill {ids}")


def _is_orphan(process: psutil.Process) -> bool:
    """Return whether a process is a Ray worker, or a vLLM engine in one, whose raylet has ended."""
    if not (process.info["cmdline"] or [""])[0].startswith(("ray::", "VLLM::")):
        return False
    raylet = (process.info["environ"] or {}).get("RAY_RAYLET_PID", "")
    return raylet.isdecimal() and not psutil.pid_exists(int(raylet))


def _size(folder: Path) -> int:
    """Return the disk usage of a folder in bytes; files that vanish meanwhile are skipped."""
    size = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                size += 512 * os.lstat(os.path.join(parent, name)).st_blocks
            except OSError:
                continue
    return size
