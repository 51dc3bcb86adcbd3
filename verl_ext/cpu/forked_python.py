"""Starts Python processes by the fork server of a run; as a program, the `python` with which Ray starts its workers.

    python -I -S forked_python.py SCRIPT ARGUMENTS

Without a fork server, for example after its death, the program becomes Python itself, which is only slower. It runs
once per worker, so it imports only a little of the standard library.
"""

import json
import os
import socket
import sys
from collections.abc import Iterable

# The environment variable with the name of the server's socket.
SERVER = "VERL_EXT_FORK_SERVER"


def fork_python(
    arguments: list[str], descriptors: Iterable[int], *, ends_with_this: bool = False, extra_niceness: int = 0
) -> tuple[socket.socket, int]:
    """Fork `python ARGUMENTS` with the environment, working directory, process group and niceness of this process.

    Args:
        arguments: a script or `-c CODE`, and its arguments.
        descriptors: files of this process that the new process gets under the same numbers.
        ends_with_this: kill the new process when this one closes the connection or ends, however it ends.
        extra_niceness: added to the niceness of this process.

    Returns:
        A connection that receives the exit status when the process ends, and the id of the process.

    Raises:
        OSError: there is no fork server.
    """
    numbers = list(descriptors)
    request = {
        "arguments": arguments,
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "group": os.getpgrp(),
        "niceness": os.getpriority(os.PRIO_PROCESS, 0) + extra_niceness,
        "descriptors": numbers,
        "ends_with_connection": ends_with_this,
    }
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        connection.connect("\0" + os.environ.get(SERVER, "none"))
        socket.send_fds(connection, [json.dumps(request).encode()], numbers)
        if not (answer := connection.recv(64)):
            raise ConnectionError("the fork server ended")
        return connection, int(answer)
    except OSError:
        connection.close()
        raise


if __name__ == "__main__":
    try:
        fork_python(sys.argv[1:], (0, 1, 2))
    except OSError:
        os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
