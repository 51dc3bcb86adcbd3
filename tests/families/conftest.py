"""What the tests of families share."""

from collections import defaultdict

import pytest


@pytest.fixture(scope="session")
def matrix() -> dict[str, dict[str, str]]:
    """The table of docs/families.md as the tests of this session find it: cells by column, by family.

    Each test writes its cell once it has passed.
    """
    return defaultdict(dict)
