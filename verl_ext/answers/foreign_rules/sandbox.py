"""Run comparisons that may hang, exhaust memory, crash or execute code in another process, within limits.

A *fork server*, one process per client process, imports what the comparisons need and forks a *child* per session. Only
the standard library is imported here; `sandbox_child` is the code of the fork server and its children.
"""

import contextlib
import os
import pickle
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass

SECONDS_TO_START = 60.0
# Seconds by which a call may exceed its limit before the client has the child killed; its own alarm comes first.
SECONDS_OF_GRACE = 0.02

# `-m` would let packages in the working directory shadow those that this process sees.
_FORK_SERVER_CODE = """
import sys
sys.path[:] = {path!r}
from verl_ext.answers.foreign_rules.sandbox_child import serve_forks
serve_forks({descriptor})
"""


class Sandbox(contextlib.AbstractContextManager["Sandbox"]):
    """A session of comparisons by one function. Any number of sessions may be open, each used by one thread at a time.

    The child is forked at the first call, which takes a second if there is no fork server yet, and serves all calls of
    the session. A child that exceeds its limit or crashes is ended, and the next call forks another. Use the session as
    a context manager, which ends the child, and do not carry it over a fork of the calling process.

    Code that a response smuggles into its child can falsify only later verdicts of the same session, so give each group
    of answers its own session.
    """

    def __init__(self, function: str, seconds: float, memory_mib: int = 512) -> None:
        """Create a session.

        Args:
            function: "package.module:name" of a function of two answers that returns a bool. Neither its module nor the
                function may start threads. Slow imports belong at the top of the module.
            seconds: wall-clock limit of one call.
            memory_mib: memory that the child may allocate beyond what it starts with, in MiB.
        """
        self._function, self._seconds, self._memory_mib = function, seconds, memory_mib
        self._child: _Child | None = None

    def __call__(self, a: object, b: object) -> bool | None:
        """Return the function's result for a and b; None if it raises, crashes or exceeds its limits.

        Blocks no longer than the limit, plus the start of a child if one is needed.

        Raises:
            RuntimeError: the function cannot be imported, or no child can be started.
        """
        request = pickle.dumps((a, b))
        child, self._child = self._child or _fork(self._function, self._seconds, self._memory_mib), None
        verdict = b""
        try:
            verdict = child.ask(request, self._seconds + SECONDS_OF_GRACE)
        finally:
            # After any interruption, a late answer must not be taken for the answer to the next call.
            if verdict in (b"1", b"0", b"?"):
                self._child = child
            else:
                child.end()
        return {b"1": True, b"0": False}.get(verdict)

    def __exit__(self, *_: object) -> None:
        if self._child is not None:
            self._child.end()
            self._child = None


class _ForkServer:
    def __init__(self) -> None:
        # SEQPACKET keeps message boundaries, so threads need no lock to send. Each side ends when the other does.
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            path = [os.path.abspath(entry) for entry in sys.path]
            code = _FORK_SERVER_CODE.format(path=path, descriptor=theirs.fileno())
            self.process = subprocess.Popen(
                [sys.executable, "-c", code],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )

    def fork(self, function: str, seconds: float, memory_mib: int) -> "_Child":
        ours, theirs = socket.socketpair()
        try:
            ours.settimeout(SECONDS_TO_START)
            with theirs:
                request = pickle.dumps((function, seconds, memory_mib))
                socket.send_fds(self.control, [request], [theirs.fileno()])
            # Either the pid, from the child, which has seen no answer yet, or an error from the fork server.
            greeting = ours.recv(4096)
            if not greeting:
                raise ConnectionResetError("the fork server ended")
            if not greeting.isdigit():
                raise RuntimeError(greeting.decode(errors="replace"))
        except BaseException:
            ours.close()
            raise
        return _Child(self, ours, int(greeting))

    def end(self, pid: int) -> None:
        # Without the fork server, its children are gone, too.
        with contextlib.suppress(OSError):
            self.control.send(pickle.dumps(pid))

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        self.control.close()


@dataclass(frozen=True)
class _Child:
    fork_server: _ForkServer
    connection: socket.socket
    pid: int

    def ask(self, request: bytes, seconds: float) -> bytes:
        """Return the child's one-byte answer, b"" if none arrives in time."""
        deadline = time.monotonic() + seconds
        try:
            self.connection.settimeout(seconds)
            self.connection.sendall(request)
            self.connection.settimeout(max(deadline - time.monotonic(), 1e-6))
            return self.connection.recv(1)
        except OSError:
            return b""

    def end(self) -> None:
        self.connection.close()
        self.fork_server.end(self.pid)


_fork_server: _ForkServer | None = None
_lock = threading.Lock()


def _fork(function: str, seconds: float, memory_mib: int) -> _Child:
    global _fork_server
    for _ in range(2):
        with _lock:
            if _fork_server is None or _fork_server.process.poll() is not None:
                _fork_server = _ForkServer()
            fork_server = _fork_server
        try:
            return fork_server.fork(function, seconds, memory_mib)
        except TimeoutError:
            fork_server.stop()
            break
        except OSError:
            fork_server.stop()
    raise RuntimeError(
        f"cannot start a process that compares answers: {sys.executable} did not import {function} within "
        f"{SECONDS_TO_START:.0f} s, or was killed while importing it; see its error output and the free memory"
    )


def _forget_the_parents_fork_server() -> None:
    global _fork_server, _lock
    if _fork_server is not None:
        _fork_server.control.close()
    _fork_server, _lock = None, threading.Lock()


os.register_at_fork(after_in_child=_forget_the_parents_fork_server)
