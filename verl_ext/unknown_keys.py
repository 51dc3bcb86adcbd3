"""Refuses unknown keys and bad values in a block of the config, naming the nearest key that exists. Pure."""

import difflib
from collections.abc import Callable, Collection, Iterable, Mapping
from inspect import signature
from math import inf
from typing import Any, TypeVar

Settings = TypeVar("Settings")


def nearest(name: str, known: Iterable[str]) -> str:
    """Return "did you mean ...?" with the nearest known name, to end a message; empty if none is near.

    Known names with the same last dotted part come first.
    """
    last = name.rpartition(".")[2]
    alike = sorted(other for other in known if other.rpartition(".")[2] == last)
    matches = difflib.get_close_matches(name, alike or sorted(known), n=1, cutoff=0.0 if alike else 0.6)
    return f"; did you mean {matches[0]!r}?" if matches else ""


def refuse_unknown_keys(given: Iterable[str], known: Collection[str]) -> None:
    """Raise ValueError that names every unknown key."""
    if problems := [f"there is no key {key!r}{nearest(key, known) or '.'}" for key in given if key not in known]:
        raise ValueError(" ".join(problems))


def read_block(block: Mapping[str, Any], make: Callable[..., Settings], others: Collection[str] = ()) -> Settings:
    """Return `make(**block)` without the keys `others`, which the caller reads.

    Raises:
        ValueError: `block` is not a mapping, has unknown keys, or has values that `make` refuses.
    """
    parameters = signature(make).parameters
    if not isinstance(block, Mapping):
        raise ValueError(f"must be a block of {', '.join(parameters)}, not {block!r}")
    problems = []
    try:
        refuse_unknown_keys(block, {*parameters, *others})
    except ValueError as error:
        problems.append(str(error))
    try:
        settings = make(**{key: value for key, value in block.items() if key in parameters})
    except ValueError as error:
        problems.append(str(error))
    if problems:
        raise ValueError(" ".join(problems))
    return settings


def refuse_values(settings: object, allowed: Mapping[str, tuple[bool, str]], block: str = "") -> None:
    """Raise ValueError that names every field with a value that is not allowed.

    Args:
        allowed: for each field, whether its value is allowed, and a description of the allowed values.
        block: a prefix for the field names in messages.
    """
    problems = [
        f"{block}{name} must be {values}, not {getattr(settings, name)!r}"
        for name, (is_allowed, values) in allowed.items()
        if not is_allowed
    ]
    if problems:
        raise ValueError("; ".join(problems))


def is_whole(value: Any, least: float = -inf) -> bool:
    """Whether a value is a whole number of at least `least`."""
    return type(value) is int and value >= least


def is_number(value: Any, least: float, most: float = inf) -> bool:
    """Whether a value is a number from `least` to `most`."""
    return type(value) in (int, float) and least <= value <= most
