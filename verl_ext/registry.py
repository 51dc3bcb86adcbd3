"""Registries: all entries of one kind by name, from this repository and from other packages.

A registry imports all modules of one package of this repository, so an addition takes one file there. Modules elsewhere
are named in one of two ways, like veRL's own plugins:

- an installed package has an entry point in the group `mmupt.plugins`, whose value is the module;
- the environment variable MMUPT_PLUGINS has the names of modules, separated by commas.
"""

import os
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pkgutil import iter_modules
from threading import RLock
from traceback import extract_tb
from typing import Any, Generic, TypeVar, cast

GROUP = "mmupt.plugins"
VARIABLE = "MMUPT_PLUGINS"

Entry = TypeVar("Entry")
Added = TypeVar("Added")


class PluginError(ValueError):
    """A plugin cannot be imported (the message says who names it), or its name is taken."""


class Registry(Mapping[str, Entry], Generic[Entry]):
    """The entries of one kind, sorted by name. They are imported when the registry is first read.

    Read a registry only in functions: plugins that need a module cannot be imported while it is being imported.

    Args:
        noun: what an entry is called in error messages.
        package: each of its modules is imported; those that have an entry register it.
    """

    def __init__(self, noun: str, package: str) -> None:
        self._noun, self._package = noun, package
        self._entries: dict[str, Entry] = {}
        self._loaded = False
        self._lock = RLock()

    def register(self, entry: Added) -> Added:
        """Add an entry under its `name`, or a function under its own, and return it: usable as a decorator.

        Raises:
            PluginError: another entry has the name.
        """
        name = str(entry.name if hasattr(entry, "name") else entry.__name__)  # type: ignore[attr-defined]
        other: Any = self._entries.setdefault(name, cast("Any", entry))
        if other is not entry:
            raise PluginError(f"the {self._noun} {name!r} is already registered by {_described(other)}: rename one")
        return entry

    def named(self, name: str) -> Entry:
        """The entry of this name.

        Raises:
            ValueError: there is none; the message lists the known names.
        """
        if name not in self:
            raise ValueError(f"there is no {self._noun} {name!r}; known: {', '.join(self)}")
        return self[name]

    def __getitem__(self, name: str) -> Entry:
        return self._all()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._all()))

    def __len__(self) -> int:
        return len(self._all())

    def _all(self) -> dict[str, Entry]:
        # The lock is reentrant: the loading thread may read the entries so far, and other threads wait.
        with self._lock:
            if not self._loaded:
                self._loaded = True
                try:
                    for module in iter_modules(import_module(self._package).__path__, f"{self._package}."):
                        import_module(module.name)
                    load_plugins()
                except BaseException:
                    self._loaded = False
                    raise
        return self._entries


@cache
def load_plugins() -> None:
    """Import the plugin modules named in the environment or by an installed package.

    Raises:
        PluginError: one of them cannot be imported.
    """
    names = {name.strip(): f"the variable {VARIABLE}" for name in os.environ.get(VARIABLE, "").split(",")}
    names |= {
        entry_point.module: f"the package {entry_point.dist.name if entry_point.dist else '?'}"
        for entry_point in entry_points(group=GROUP)
    }
    for name, source in names.items():
        if name:
            try:
                import_module(name)
            except Exception as error:
                raise PluginError(f"{source} names {name!r}, which cannot be imported: {_summary(error)}") from error


def _summary(error: Exception) -> str:
    """An error and the place where it was raised, unless Python's import system raised it."""
    last = extract_tb(error.__traceback__)[-1]
    place = "" if last.filename.startswith("<") else f" ({last.filename}, line {last.lineno})"
    return f"{type(error).__name__}: {error}{place}"


def _described(entry: Any) -> str:
    return f"{entry.__module__}.{entry.__qualname__}" if hasattr(entry, "__qualname__") else repr(entry)
