"""Chooses the rows of an epoch from self-generated and original questions. Pure."""

import random
from collections.abc import Sequence


def mixture(generated: Sequence[bool], share: float, seed: int) -> list[int]:
    """Return the largest selection of rows in which `share` of the questions are self-generated, in order.

    The kind with too many rows is sampled without replacement.

    Args:
        generated: whether the model wrote the question, for every row.
        share: the share of self-generated questions, 0 to 1.

    Raises:
        ValueError: the share is not between 0 and 1, or a kind that it needs has no rows.

    >>> mixture([True, True, True, False, False], 0.5, seed=1)
    [0, 2, 3, 4]
    """
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"the share of self-generated questions must be between 0 and 1, not {share}")
    kinds = [
        ([row for row, is_generated in enumerate(generated) if is_generated == kind], part)
        for kind, part in ((True, share), (False, 1.0 - share))
    ]
    for (rows, part), name in zip(kinds, ("self-generated", "original"), strict=True):
        if part > 0 and not rows:
            raise ValueError(f"{part:.0%} of the questions are to be {name}, and none of {len(generated)} is")
    size = min(len(rows) / part for rows, part in kinds if part > 0)
    draw = random.Random(seed)
    # A quotient like 29.999999999999996 is 30.
    return sorted(row for rows, part in kinds for row in draw.sample(rows, int(size * part + 1e-9)))
