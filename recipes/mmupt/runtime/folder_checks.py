"""Checks folders of this machine: write access, room for sockets, and modules in the working directory."""

import os
import tempfile
from collections.abc import Iterator, Mapping
from importlib.machinery import PathFinder
from pathlib import Path

from mmupt.hardware import joins_cluster, ray_folder

# Longest path of a Unix socket in bytes: sun_path has 108, including the terminating zero.
SOCKET_PATH = 107
# Longest socket paths of Ray below its folder, and of vLLM below the temporary folder (vllm/utils/network_utils.py,
# get_open_zmq_ipc_path).
RAY_SOCKET = "/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
VLLM_SOCKET = "/00000000-0000-0000-0000-000000000000"
# Packages in site-packages that no worker imports, but that users' own files are often named after.
NEVER_IMPORTED = frozenset(("recipe", "scripts", "test", "tests", "tutorial"))


def problems_of_sockets(environ: Mapping[str, str]) -> Iterator[str]:
    """Yield problems that keep Ray, vLLM and veRL from creating their sockets on this machine."""
    vllm = Path(environ.get("VLLM_RPC_BASE_PATH") or tempfile.gettempdir())
    places = [(vllm, VLLM_SOCKET, "TMPDIR or VLLM_RPC_BASE_PATH")]
    if not joins_cluster():
        places.insert(0, (ray_folder(), RAY_SOCKET, "TMPDIR or RAY_TMPDIR"))
    for folder, socket, variables in places:
        if (surplus := len(os.fsencode(f"{folder}{socket}")) - SOCKET_PATH) > 0:
            yield (
                f"{folder} is {surplus} bytes too long for the sockets in it: set {variables} to a shorter folder, "
                "such as /tmp"
            )
        elif not can_write(folder):
            yield f"{folder} is not writable: set {variables} to a writable folder"
    # veRL's path is fixed (vllm_rollout.py, zmq_handle).
    if not can_write(Path("/tmp")):
        yield "/tmp is not writable, but veRL sends weights to vLLM through a socket in it: make it writable"


def problems_of_working_directory() -> Iterator[str]:
    """Yield the modules of the working directory that Ray's workers would import instead of installed ones.

    Ray puts the launcher's working directory first in the `sys.path` of its workers (ray/_private/worker.py, connect),
    and has no setting to prevent it.
    """
    for path in sorted(Path.cwd().iterdir()):
        name = path.stem if path.suffix == ".py" else path.name
        file = path / "__init__.py" if path.suffix != ".py" else path
        if not file.is_file() or name in NEVER_IMPORTED:
            continue
        # Searches this process's `sys.path`, which does not contain the working directory.
        spec = PathFinder.find_spec(name)
        if spec is not None and spec.origin is not None and Path(spec.origin).resolve() != file.resolve():
            yield (
                f"{file} would hide {spec.origin} from Ray's workers, which import from the working directory first: "
                "rename it, or run the command in another folder"
            )


def can_write(folder: Path) -> bool:
    """Return whether files can be created in a folder, or the folder itself if it does not exist."""
    nearest = folder.absolute()
    while not nearest.exists():
        nearest = nearest.parent
    return nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)
