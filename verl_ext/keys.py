"""Unknown keys of a block of the configuration are refused, with the nearest one that exists. Pure."""

import difflib
from collections.abc import Collection, Iterable


def refuse_unknown_keys(given: Iterable[str], known: Collection[str]) -> None:
    """Raise ValueError for the first of the given keys that is not known."""
    for key in given:
        if key not in known:
            (nearest,) = difflib.get_close_matches(key, sorted(known), n=1, cutoff=0.0)
            raise ValueError(f"there is no key {key!r}; did you mean {nearest!r}?")
