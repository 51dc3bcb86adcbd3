"""A server that imports torch, veRL and vLLM once and forks the Python processes of a CPU run.

Without it, each of a run's dozen processes would spend 3 to 6 s of CPU on these imports; forked processes also share
their memory. `fork_server` starts the server and returns the settings with which Ray starts workers by
`forked_python.py`; `verl_ext.patches.forked_engine` has vLLM's engine forked. A process that has used a GPU cannot be
forked, so this is for the CPU only.

A forked process gets the environment, working directory, arguments and standard output of its requester, so apart from
its parent it equals a new `python`. A worker ends with its raylet, like all of Ray's workers; vLLM's engine ends with
its requester. The server ends with the process that started it.
"""

import fcntl
import gc
import json
import os
import runpy
import select
import shlex
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from verl_ext.cpu import forked_python

# Most imports of the workers of veRL, this project and vLLM, including lazy ones.
LIBRARIES = (
    "torch",
    "transformers",
    "transformers.models.qwen2_5_vl.modeling_qwen2_5_vl",
    "transformers.models.qwen2_5_vl.processing_qwen2_5_vl",
    "tensordict",
    "datasets",
    "peft",
    "torch.utils.tensorboard",
    "torchdata.stateful_dataloader",
    "vllm.engine.arg_utils",
    "vllm.model_executor.models.qwen2_5_vl",
    "vllm.v1.worker.cpu_worker",
    "fastapi",
    "uvicorn",
)
# Modules that import Ray. They wait for the first request, because Ray reads its cluster when it is imported.
WITH_RAY = (
    "ray._private.workers.default_worker",
    "verl.trainer.main_ppo",
    "verl.trainer.ppo.v1",
    "verl.workers.rollout.vllm_rollout.vllm_async_server",
    "verl.experimental.agent_loop",
    "verl.experimental.reward_loop",
    "verl_ext.rollout.agent_loop",
    "verl_ext.rollout.replay_buffer",
    "verl_ext.rollout.reward_manager",
)
# Variables of a worker's Ray cluster, which Ray reads once, when it is imported.
RAY_CLUSTER_VARIABLES = ("RAY_JOB_ID", "RAY_RAYLET_PID")


@contextmanager
def fork_server(
    variables: Mapping[str, str], libraries: Sequence[str] = LIBRARIES, with_ray: Sequence[str] = WITH_RAY
) -> Iterator[dict[str, Any]]:
    """Run the server during the block; yields the `runtime_env` entries with which Ray's workers are forked.

    The server imports the libraries in parallel with the block. The first workers wait for it.

    Args:
        variables: environment variables of all workers; imports read some of them.
        libraries: modules to import at once; none may import Ray.
        with_ray: modules to import with the environment of the first worker.
    """
    name = f"verl_ext-fork-server-{os.getpid()}-{os.urandom(8).hex()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        # A leading zero byte puts the name into the abstract namespace, without a file.
        listener.bind("\0" + name)
        listener.listen(64)
        # The server ends when its standard input does.
        server = subprocess.Popen(
            [
                sys.executable,
                "-c",
                f"from {__name__} import main; main({listener.fileno()})",
                *libraries,
                "--",
                *with_ray,
            ],
            # By default, importing pyarrow starts a thread of its allocator.
            env={**os.environ, "JE_ARROW_MALLOC_CONF": "background_thread:false", **variables},
            stdin=subprocess.PIPE,
            pass_fds=[listener.fileno()],
        )
    program = shlex.join([sys.executable, "-I", "-S", str(Path(forked_python.__file__))])
    try:
        yield {"py_executable": program, "env_vars": {forked_python.SERVER: name}}
    finally:
        server.kill()
        server.communicate()


def main(descriptor: int) -> None:
    """Import the modules of the command line, then fork a process for every request on a listening socket."""
    # The working directory may have a folder named like a library.
    sys.path.pop(0)
    separator = sys.argv.index("--")
    libraries, with_ray = sys.argv[1:separator], sys.argv[separator + 1 :]
    sys.argv[1:] = []
    gc.disable()
    changed = _import(libraries)
    if "ray._raylet" in sys.modules:
        sys.exit("the fork server must not import Ray before it knows the cluster: workers import anew")
    with socket.socket(fileno=descriptor) as listener:
        run = _serve(listener, with_ray, changed)
    run()


def _import(modules: Iterable[str]) -> dict[str, str]:
    """Import modules and return the environment variables that the imports set."""
    before = dict(os.environ)
    for module in modules:
        import_module(module)
    if (threads := len(os.listdir("/proc/self/task"))) > 1:
        sys.exit(f"the fork server has {threads} threads after imports and cannot be forked: workers import anew")
    return {key: value for key, value in os.environ.items() if before.get(key) != value}


@contextmanager
def _random_generator_of_ray_unused() -> Iterator[None]:
    """Have the IDs of actor classes, the only ones that Ray draws in imports, drawn by the system.

    Ray's generator (`FillRandom` in its C++ code) is not fork-safe: once it is used, all forked processes draw the same
    IDs. The object store then takes an object of one process for another's, and a worker reads the wrong one.
    """
    actor: Any = sys.modules["ray.actor"]
    ids = actor.ActorClassID
    actor.ActorClassID = SimpleNamespace(from_random=lambda: ids(os.urandom(ids.size())))
    try:
        yield
    finally:
        actor.ActorClassID = ids


def _id_of_a_forked_process() -> bytes:
    """Fork a process and return the first ID of Ray that it draws."""
    reader, writer = os.pipe()
    if not (pid := os.fork()):
        os.write(writer, sys.modules["ray._raylet"].ObjectRef.from_random().binary())
        os._exit(0)
    os.waitpid(pid, 0)
    os.close(writer)
    with open(reader, "rb") as drawn:
        return drawn.read()


def _serve(listener: socket.socket, with_ray: list[str], changed: dict[str, str]) -> Callable[[], object]:
    """Fork a process per request until standard input ends; in each forked process, return the function to run."""
    connections: dict[int, socket.socket] = {}
    cluster: list[str | None] | None = None

    def reap() -> None:
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG)) != (0, 0):
                with connections.pop(ended[0]) as connection, suppress(OSError):
                    connection.send(str(os.waitstatus_to_exitcode(ended[1])).encode())

    # Without the wakeup socket, `select` would miss a child that ends just before it begins to wait.
    wakes, signalled = socket.socketpair()
    for one in (wakes, signalled):
        one.setblocking(False)
    signal.set_wakeup_fd(signalled.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    # Ray blocks SIGINT in all processes that it starts, too.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    while True:
        readable, _, _ = select.select([listener, sys.stdin, wakes], [], [])
        if sys.stdin in readable:
            sys.exit()
        if wakes in readable:
            wakes.recv(4096)
            reap()
        if listener not in readable:
            continue
        connection, _ = listener.accept()
        message, descriptors, _, _ = socket.recv_fds(connection, 1 << 20, 64)
        request = json.loads(message) if message and _user_of(connection) == os.getuid() else None
        if request is not None:
            environment = request["environment"]
            if cluster is None:
                cluster = [environment.get(name) for name in RAY_CLUSTER_VARIABLES]
                os.environ.update({key: value for key, value in environment.items() if os.environ.get(key) != value})
                changed |= _import(["ray.actor"])
                with _random_generator_of_ray_unused():
                    changed |= _import(with_ray)
                if len({_id_of_a_forked_process() for _ in range(2)}) == 1:
                    sys.exit(
                        "an import has drawn an ID of Ray, so forked workers would draw the same IDs: they import anew"
                    )
                _share_process_title()
                # Imported objects are permanent, and collecting garbage among them would copy them in each process.
                gc.collect()
                gc.freeze()
                gc.enable()
            if cluster != [environment.get(name) for name in RAY_CLUSTER_VARIABLES]:
                request = None
        if request is None:
            connection.close()
        elif pid := os.fork():
            connections[pid] = connection
            _join_group(pid, request["group"])
            # The requester may have ended.
            with suppress(OSError):
                connection.send(str(pid).encode())
        else:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for other in (listener, wakes, signalled, *connections.values()):
                other.close()
            _join_group(0, request["group"])
            return _become(request, connection.detach(), descriptors, changed)
        for descriptor in descriptors:
            os.close(descriptor)


def _join_group(pid: int, group: int) -> None:
    """Put a process into the group by which Ray ends a worker's leftovers. Server and child both call this, to avoid a
    race."""
    # The group ends with the requester.
    with suppress(OSError):
        os.setpgid(pid, group)


def _share_process_title() -> None:
    """Have Ray set the titles of all processes, including vLLM's.

    Ray and the library `setproctitle` write into the memory of the arguments, which each locates by the environment and
    then moves. So only the first can do this, and only before the environment is replaced.
    """
    titles: Any = import_module("setproctitle")
    ray: Any = sys.modules["ray._raylet"]
    ray.getproctitle()
    titles.setproctitle, titles.getproctitle = ray.setproctitle, ray.getproctitle


def _user_of(connection: socket.socket) -> int:
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", credentials)[1])


def _become(
    request: dict[str, Any], connection: int, descriptors: list[int], environment: dict[str, str]
) -> Callable[[], object]:
    """Turn this process into the requested one, and return the function that it runs.

    It keeps the connection open, so the requester sees its end even if the server has ended before.
    """
    numbers = request["descriptors"]
    # Move all descriptors above the requested numbers first, so that none is overwritten.
    kept, *moved = (fcntl.fcntl(one, fcntl.F_DUPFD_CLOEXEC, max(numbers) + 1) for one in (connection, *descriptors))
    for descriptor in (connection, *descriptors):
        os.close(descriptor)
    for descriptor, number in zip(moved, numbers, strict=True):
        if number > 2 and os.path.exists(f"/proc/self/fd/{number}"):
            raise RuntimeError(f"file {number}, which the new process is given, is open since an import")
        os.dup2(descriptor, number)
        os.close(descriptor)
    if request["ends_with_connection"]:
        threading.Thread(target=_end_with, args=(kept,), daemon=True).start()
    os.environ.clear()
    os.environ.update({**environment, **request["environment"]})
    os.chdir(request["folder"])
    # Lowering the niceness takes privileges.
    os.nice(max(0, request["niceness"] - os.getpriority(os.PRIO_PROCESS, 0)))
    # Otherwise all processes would draw the same numbers; `random` reseeds itself, and torch's seed is a constant.
    import_module("numpy").random.seed()
    if ray := sys.modules.get("ray._raylet"):
        # Ray read its variables, such as RAY_AUTH_MODE, when it was imported.
        ray.Config.initialize("")
    first, *rest = request["arguments"]
    if first == "-c":
        code, *rest = rest
        sys.argv = ["-c", *rest]
        return lambda: exec(code, {"__name__": "__main__"})
    sys.argv = [first, *rest]
    sys.path.insert(0, str(Path(first).parent))
    return lambda: runpy.run_path(first, run_name="__main__")


def _end_with(connection: int) -> None:
    """Kill this process when the other end closes a connection, over which nothing is sent."""
    socket.socket(fileno=connection).recv(1)
    os.kill(os.getpid(), signal.SIGKILL)
