"""Refuses unknown keys and bad values in a block of the config, naming the nearest key that exists. Pure."""

import difflib
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, TypeVar

Settings = TypeVar("Settings")


def nearest(name: str, known: Iterable[str]) -> str:
    """Return "did you mean ...?" with the nearest known name, to end a message; empty without known names."""
    matches = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.0)
    return f"; did you mean {matches[0]!r}?" if matches else ""


def refuse_unknown_keys(given: Iterable[str], known: Collection[str]) -> None:
    """Raise ValueError that names every given key that is not known."""
    problems = []
    for key in given:
        if key not in known:
            problems.append(f"there is no key {key!r}{nearest(key, known)}")
    if problems:
        raise ValueError(" ".join(problems))


def read_block(block: Mapping[str, Any], known: Collection[str], make: Callable[..., Settings]) -> Settings:
    """Return `make(**block)`; ValueError with the unknown keys and what `make` refuses."""
    problems = []
    try:
        refuse_unknown_keys(block, known)
    except ValueError as error:
        problems.append(str(error))
    try:
        settings = make(**{key: value for key, value in block.items() if key in known})
    except ValueError as error:
        problems.append(str(error))
    if problems:
        raise ValueError(" ".join(problems))
    return settings


def refuse_values(settings: object, allowed: Mapping[str, tuple[bool, str]]) -> None:
    """Raise ValueError that names every field with a value that is not allowed.

    Args:
        settings: an object with the fields.
        allowed: of each field, whether its value is allowed, and which values are.
    """
    problems = [
        f"{name} must be {values}, not {getattr(settings, name)!r}"
        for name, (is_allowed, values) in allowed.items()
        if not is_allowed
    ]
    if problems:
        raise ValueError("; ".join(problems))
