"""A mixture has the requested share, repeats no row, and is deterministic."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verl_ext.datasets.mixture import mixture

KINDS = st.lists(st.booleans(), min_size=2, max_size=60).filter(lambda kinds: len(set(kinds)) == 2)


@given(KINDS, st.floats(0.05, 0.95), st.integers(0, 5))
def test_the_share_is_met_to_one_row_and_no_larger_mixture_would_meet_it(
    kinds: list[bool], share: float, seed: int
) -> None:
    rows = mixture(kinds, share, seed)
    assert rows == sorted(set(rows)) and rows == mixture(kinds, share, seed)
    generated = sum(kinds[row] for row in rows)
    # Both counts are rounded down.
    size = min(sum(kinds) / share, (len(kinds) - sum(kinds)) / (1 - share))
    assert size * share - 1 < generated <= size * share + 1e-6
    assert size * (1 - share) - 1 < len(rows) - generated <= size * (1 - share) + 1e-6
    assert generated in (sum(kinds), sum(kinds) - 1) or len(rows) - generated in (
        len(kinds) - sum(kinds),
        len(kinds) - sum(kinds) - 1,
    )


@given(KINDS)
def test_a_share_of_one_or_zero_takes_every_row_of_one_kind(kinds: list[bool]) -> None:
    assert mixture(kinds, 1.0, 0) == [row for row, kind in enumerate(kinds) if kind]
    assert mixture(kinds, 0.0, 0) == [row for row, kind in enumerate(kinds) if not kind]


def test_another_seed_takes_other_rows() -> None:
    kinds = [True] * 200 + [False] * 20
    assert mixture(kinds, 0.5, 1) != mixture(kinds, 0.5, 2)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_an_invalid_share_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="must be between 0 and 1"):
        mixture([True, False], share, 0)


def test_a_missing_kind_is_named() -> None:
    with pytest.raises(ValueError, match="50% of the questions are to be self-generated, and none of 2 is"):
        mixture([False, False], 0.5, 0)
    with pytest.raises(ValueError, match="to be original"):
        mixture([True, True], 0.5, 0)
