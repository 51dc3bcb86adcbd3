"""The other side of `sandbox`: the fork server, and the children that it forks to compare answers.

The text of a response may run as code in a child. A child therefore has only its own connection open, sends only single
bytes after its pid, and is killed by the kernel's alarm, or by the fork server if the alarm was disarmed.
"""

import contextlib
import ctypes
import gc
import importlib
import os
import pickle
import resource
import signal
import socket
from collections.abc import Callable
from typing import Any

Function = Callable[[Any, Any], bool]

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


def serve_forks(descriptor: int) -> None:
    """Fork and end children on request from the control socket, until its other side is closed."""
    # Ignored and blocked signals are inherited, so reset them. The client handles keyboard interrupts.
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    children: set[int] = set()
    with socket.socket(fileno=descriptor) as control:
        while True:
            message, descriptors, _, _ = socket.recv_fds(control, 65536, maxfds=1)
            if not message:
                break
            request = pickle.loads(message)
            if isinstance(request, int):
                children.remove(request)
                _end(request)
                continue
            with socket.socket(fileno=descriptors[0]) as connection:
                name, seconds, memory_mib = request
                try:
                    function = _load(name)
                    pid = os.fork()
                except Exception as error:
                    with contextlib.suppress(OSError):
                        connection.send(f"{name}: {error!r}".encode())
                    continue
                if pid == 0:
                    control.close()
                    try:
                        _serve(connection, function, seconds, memory_mib)
                    finally:
                        os._exit(0)
                children.add(pid)
    for pid in children:
        _end(pid)


def _load(name: str) -> Function:
    module, _, function = name.partition(":")
    loaded = getattr(importlib.import_module(module), function)
    # Without this, garbage collection in a child would touch, and so copy, memory shared with the fork server.
    gc.freeze()
    return loaded


def _end(pid: int) -> None:
    # Only the fork server reaps its children, so the pid cannot have been reused.
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def _serve(connection: socket.socket, function: Function, seconds: float, memory_mib: int) -> None:
    fork_server = os.getppid()
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    _restrict(memory_mib)
    connection.send(str(os.getpid()).encode())
    requests = connection.makefile("rb")
    while os.getppid() == fork_server:
        try:
            a, b = pickle.load(requests)
        except EOFError:
            return
        # The alarm's default action ends the process without running Python, so it stops C code, too.
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            verdict = b"1" if function(a, b) else b"0"
        except BaseException:
            verdict = b"?"
        signal.setitimer(signal.ITIMER_REAL, 0)
        connection.send(verdict)


def _restrict(memory_mib: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    with open("/proc/self/statm") as statm:
        address_space = int(statm.read().split()[0]) * resource.getpagesize() + (memory_mib << 20)
    for limit, value in (
        (resource.RLIMIT_AS, address_space),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NPROC, 0),
    ):
        hard = resource.getrlimit(limit)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (value, value))
