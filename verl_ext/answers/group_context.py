"""Equality within a group: details that some of its answers leave out, and second readings.

An answer has a core, such as a number without its unit, and details. If all answers of a group with one core that give
a detail give the same one, the answers that leave it out mean it as well. Equality of cores and completed details is an
equivalence relation that depends on the set of answers alone. Classes are then joined along `Key.instead` if that is
unambiguous; connected components are classes again.
"""

from collections import defaultdict
from collections.abc import Collection

from verl_ext.answers.answer_keys import Key
from verl_ext.answers.components import connected_components


def join(keys: Collection[Key]) -> list[list[Key]]:
    """Divide the keys of a group into classes of the same answer, each of them sorted."""
    if not any(key.details or key.instead for key in keys):
        return [[key] for key in sorted(keys)]
    shown: dict[Key, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for key in keys:
        for kind, detail in key.details:
            shown[key.bare][kind].add(detail)
    classes: dict[tuple[Key, tuple[tuple[str, str], ...]], list[Key]] = defaultdict(list)
    for key in sorted(keys):
        only = {kind: next(iter(details)) for kind, details in shown[key.bare].items() if len(details) == 1}
        classes[key.bare, tuple(sorted({**only, **dict(key.details)}.items()))].append(key)
    return _follow([members for _, members in sorted(classes.items())])


def _follow(classes: list[list[Key]]) -> list[list[Key]]:
    """Join a class to the only class that its answers may mean instead, unless a third class may mean it, too."""
    meant_by: dict[int, list[int]] = defaultdict(list)
    for position, members in enumerate(classes):
        instead = _meant_instead(members)
        targets = [
            other
            for other, candidates in enumerate(classes)
            if other != position and any(key.agrees_with(meant) for key in candidates for meant in instead)
        ]
        if len(targets) == 1:
            meant_by[targets[0]].append(position)
    sources = {target: found for target, found in meant_by.items() if len(found) == 1}
    joined = connected_components(len(classes), lambda a, b: sources.get(a) == [b] or sources.get(b) == [a])
    return [sorted(key for position in positions for key in classes[position]) for positions in joined]


def _meant_instead(members: list[Key]) -> set[Key]:
    """The second readings of a class: texts of its option, or the decimal if no answer gives the exact value alone."""
    options = {key.instead for key in members if key.instead and key.details and key.details[0][0] == "option"}
    if options:
        return options
    instead = {key.instead for key in members}
    return {meant for meant in instead if meant is not None} if len(instead) == 1 else set()
