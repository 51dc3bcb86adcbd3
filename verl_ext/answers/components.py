"""Connected components of a relation that is not transitive by itself."""

from collections.abc import Callable, Iterable
from typing import TypeVar

Item = TypeVar("Item", int, str)


def connected_components(items: Iterable[Item], linked: Callable[[Item, Item], bool]) -> list[list[Item]]:
    """Return the components of different items, sorted.

    `linked` is called with the earlier item first, and only until the later one has joined a component.
    """
    components: list[list[Item]] = []
    for item in items:
        joined, apart = [], []
        for component in components:
            (joined if any(linked(member, item) for member in component) else apart).append(component)
        components = [*apart, [*(member for component in joined for member in component), item]]
    return sorted(map(sorted, components))
