"""Equality within a group: fill in details that some answers leave out, and apply second readings.

An answer has a core, such as a number without its unit, and details, such as the unit. If all answers with the same
core that give a detail agree on it, answers that leave it out take it over. Equality of cores and completed details is
an equivalence relation that depends only on the set of answers. Classes are then joined along `Key.instead` where that
is unambiguous; the connected components are the final classes.
"""

from collections import defaultdict
from collections.abc import Collection

from verl_ext.answers.answer_keys import Key
from verl_ext.answers.components import connected_components


def join(keys: Collection[Key]) -> list[list[Key]]:
    """Divide the keys of a group into classes of equal answers, each sorted."""
    if not any(key.details or key.instead for key in keys):
        return [[key] for key in sorted(keys)]
    details_of: dict[Key, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for key in keys:
        for kind, detail in key.details:
            details_of[key.bare][kind].add(detail)
    classes: dict[tuple[Key, tuple[tuple[str, str], ...]], list[Key]] = defaultdict(list)
    for key in sorted(keys):
        only = {kind: next(iter(details)) for kind, details in details_of[key.bare].items() if len(details) == 1}
        classes[key.bare, tuple(sorted({**only, **dict(key.details)}.items()))].append(key)
    return _follow([members for _, members in sorted(classes.items())])


def _follow(classes: list[list[Key]]) -> list[list[Key]]:
    """Join each class to the only class that is its second reading, unless that is the second reading of another."""
    meant_by: dict[int, list[int]] = defaultdict(list)
    for position, members in enumerate(classes):
        instead = _meant_instead(members)
        targets = [
            other
            for other, candidates in enumerate(classes)
            if other != position
            and any(key == meant or key.agrees_with(meant) for key in candidates for meant in instead)
        ]
        if len(targets) == 1:
            meant_by[targets[0]].append(position)
    sources = {target: positions for target, positions in meant_by.items() if len(positions) == 1}
    joined = connected_components(len(classes), lambda a, b: sources.get(a) == [b] or sources.get(b) == [a])
    return [sorted(key for position in positions for key in classes[position]) for positions in joined]


def _meant_instead(members: list[Key]) -> set[Key]:
    """Return a class's second readings: the texts of its option, else the single one that all its answers share.

    4π ≈ 12.57 may mean 12.57, but not if another answer of the class is 4π alone.
    """
    options = {key.instead for key in members if key.instead and key.details and key.details[0][0] == "option"}
    if options:
        return options
    instead = {key.instead for key in members}
    return {meant for meant in instead if meant is not None} if len(instead) == 1 else set()
