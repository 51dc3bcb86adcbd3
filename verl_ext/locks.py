"""Exclusive locks on files and folders, even on file systems without locks. Imports only the standard library.

NFS without a lock daemon, Lustre mounted without `flock` and some FUSE file systems refuse `flock`. A file in this
machine's temporary folder, named after the path, is locked instead. That excludes only processes of this machine, as a
message says.
"""

import errno
import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Errors of file systems without flock; NFS raises EBADF for a folder, which cannot be opened for writing.
WITHOUT_FLOCK = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.EBADF}


@contextmanager
def exclusive_lock(path: Path, *, wait: bool) -> Iterator[None]:
    """Hold the lock of an existing file or folder; the kernel releases it when the process ends, however it ends.

    Args:
        wait: whether to wait for another process that holds the lock.

    Raises:
        BlockingIOError: another process holds the lock, and `wait` is False.
    """
    operation = fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB)
    # NFS takes exclusive locks only on files that are open for writing.
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        try:
            fcntl.flock(descriptor, operation)
        except OSError as error:
            if error.errno not in WITHOUT_FLOCK:
                raise
            substitute = _substitute(path)
            note = f"{path}: this file system has no locks; {substitute} is locked instead, which other machines ignore"
            print(note, flush=True)
            other = os.open(substitute, os.O_RDWR | os.O_CREAT, 0o600)
            os.close(descriptor)
            descriptor = other
            fcntl.flock(descriptor, operation)
        yield
    finally:
        os.close(descriptor)


def _substitute(path: Path) -> Path:
    digest = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"mmupt-{os.getuid()}-{digest}.lock"
