"""Connected components of a relation that is not transitive by itself."""

from collections.abc import Callable, Iterable
from itertools import chain
from typing import TypeVar

Item = TypeVar("Item", int, str)


def connected_components(items: Iterable[Item], linked: Callable[[Item, Item], bool]) -> list[list[Item]]:
    """Return the components of different items, sorted.

    `linked` is called with the earlier item first, and only until the later one has joined a component.
    """
    components: list[list[Item]] = []
    for item in items:
        joined: list[list[Item]] = [
            component for component in components if any(linked(member, item) for member in component)
        ]
        components = [component for component in components if component not in joined]
        components.append([*chain.from_iterable(joined), item])
    return sorted(map(sorted, components))
