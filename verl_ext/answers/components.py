"""Connected components of a relation that is not transitive by itself."""

from collections.abc import Callable


def connected_components(count: int, linked: Callable[[int, int], bool]) -> list[list[int]]:
    """Return the components of the numbers below `count`, sorted.

    `linked` is called with the smaller number first, and only until the larger one has joined a component.
    """
    components: list[list[int]] = []
    for item in range(count):
        joined = [component for component in components if any(linked(member, item) for member in component)]
        components = [component for component in components if component not in joined]
        components.append([*(member for component in joined for member in component), item])
    return sorted(map(sorted, components))
