"""Reading the files of a run: a cache that notices changes, and errors that name damaged and foreign files."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

Value = TypeVar("Value")


class FileCache:
    """Caches values that are read from files until one of the files changes. Threads may share it."""

    def __init__(self) -> None:
        self._entries: dict[str, tuple[Any, Any]] = {}
        self._lock = Lock()

    def get(self, name: str, files: Iterable[Path], read: Callable[[], Value]) -> Value:
        """Return the result of `read`, cached under a name until the time or size of one of these files changes."""
        state = [(file, file.stat().st_mtime_ns, file.stat().st_size) for file in files if file.is_file()]
        with self._lock:
            entry = self._entries.get(name)
        if entry is None or entry[0] != state:
            entry = state, read()
            with self._lock:
                self._entries[name] = entry
        value: Value = entry[1]
        return value


@contextmanager
def readable(file: Path) -> Iterator[None]:
    """Turn all errors that damaged or foreign content can cause into a ValueError that names the file."""
    try:
        yield
    except (LookupError, TypeError, AttributeError, ValueError, OSError, YAMLError, OmegaConfBaseException) as error:
        problem = f"{type(error).__name__}: {error}"
        raise ValueError(f"{file} is damaged, or was not written by mmupt ({problem}): restore or remove it") from error
