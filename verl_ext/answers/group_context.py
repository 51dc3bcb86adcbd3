"""What the answers of one group tell about each other: which details may be left away, and what else one may mean.

An answer is told apart by its core, a number without its unit for one, and by details. Where all answers of a group
with one core that show a detail show the same one, those that leave it away mean it. What this makes equal is an
equivalence relation: an answer belongs to its core and completed details, which the set of the answers of the group
determines, in no order. Classes of that are joined further along `Key.instead`, where this is unambiguous; connected
components are classes, too.
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
    """Join a class to the only other one that its answers may mean instead, if no third class means that, too."""
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
    """What a class means otherwise: the text of its option, or the decimal where nobody gave the exact value alone."""
    options = {key.instead for key in members if key.instead and key.details and key.details[0][0] == "option"}
    if options:
        return options
    instead = {key.instead for key in members}
    return {meant for meant in instead if meant is not None} if len(instead) == 1 else set()
