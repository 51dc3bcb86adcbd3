"""Connected components: the transitive closure of a pairwise relation."""

from collections.abc import Callable


def connected_components(count: int, linked: Callable[[int, int], bool]) -> list[list[int]]:
    """Return the connected components of the numbers below `count`, sorted.

    `linked(a, b)` is called with a < b, and not again for a component that b has already joined.
    """
    components: list[list[int]] = []
    for item in range(count):
        joined = [component for component in components if any(linked(member, item) for member in component)]
        components = [component for component in components if component not in joined]
        components.append([*(member for component in joined for member in component), item])
    return sorted(map(sorted, components))
