"""Writes files atomically, so that a kill never leaves a partial file under its final name, and hashes their content.

Imports no framework.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

LFS_POINTER = b"version https://git-lfs"


@contextmanager
def replacing(path: Path, *, concurrent: bool = False) -> Iterator[Path]:
    """Yield the temporary path `NAME.tmp` beside `path`, and rename it to `path` when the block ends.

    If the block fails, `path` is unchanged and the temporary file is removed.

    Args:
        path: a file, or a folder that does not exist yet; its parent is created.
        concurrent: give each process its own temporary path, because several may write the same file at a time.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp" if concurrent else f"{path.name}.tmp")
    if temporary.is_dir():
        shutil.rmtree(temporary)
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        temporary.unlink(missing_ok=True)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a whole file. Text becomes UTF-8; lone surrogates, which UTF-8 cannot hold, become "?"."""
    with replacing(path) as temporary:
        temporary.write_bytes(content.encode(errors="replace") if isinstance(content, str) else content)


def write_json(path: Path, content: Any, *, sort_keys: bool = False) -> None:
    """Write an indented JSON file atomically."""
    write_atomically(path, f"{json.dumps(content, indent=2, sort_keys=sort_keys)}\n")


def write_json_lines(path: Path, lines: Iterable[Any]) -> None:
    """Write a file with one JSON value per line atomically."""
    write_atomically(path, "".join(map(json_line, lines)))


def json_line(value: Any) -> str:
    """A JSON value as one line, newline included."""
    return f"{json.dumps(value)}\n"


def sha256(file: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal digits."""
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while block := opened.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def is_lfs_pointer(file: Path) -> bool:
    """Whether a file is the pointer that Git LFS leaves in place of a file that it has not fetched."""
    with file.open("rb") as opened:
        return opened.read(len(LFS_POINTER)) == LFS_POINTER


def file_list(files: str | Iterable[str] | None) -> list[str]:
    """The files of a config value: a path, a list of paths, or null for none."""
    return [files] if isinstance(files, str) else list(files or [])
