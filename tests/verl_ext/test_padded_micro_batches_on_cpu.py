"""Micro-batches of padded sequences stay within their limit, padding included, on every rank."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tensordict import TensorDict
from verl.utils import tensordict_utils
from verl.workers.engine import utils
from verl.workers.engine.utils import prepare_micro_batches

from verl_ext.patches.padded_micro_batches import partition

LENGTHS = st.lists(st.integers(1, 50), min_size=1, max_size=40)


def batch(lengths: list[int], **options: Any) -> TensorDict:
    rows = [torch.full((length,), number) for number, length in enumerate(lengths)]
    data = TensorDict(
        {"input_ids": torch.nested.as_nested_tensor(rows, layout=torch.jagged)}, batch_size=[len(lengths)]
    )
    tensordict_utils.assign_non_tensor(data, use_dynamic_bsz=True, **options)
    return data


def padded_sizes(micro_batches: list[TensorDict]) -> list[int]:
    lengths = [micro_batch["input_ids"].offsets().diff() for micro_batch in micro_batches]
    return [int(tokens.max()) * len(tokens) for tokens in lengths]


@given(lengths=LENGTHS, spare=st.integers(0, 100))
def test_a_padded_micro_batch_stays_within_the_limit(lengths: list[int], spare: int) -> None:
    limit = max(lengths) + spare
    micro_batches, indices = prepare_micro_batches(
        batch(lengths, use_remove_padding=False, max_token_len_per_gpu=limit)
    )
    assert max(padded_sizes(micro_batches)) <= limit
    assert sorted(index for part in indices for index in part) == list(range(len(lengths)))
    for micro_batch, part in zip(micro_batches, indices, strict=True):
        assert [int(row[0]) for row in micro_batch["input_ids"].unbind()] == list(part)


@given(lengths=LENGTHS, more=st.integers(0, 5))
def test_all_ranks_make_as_many_micro_batches_as_the_rank_that_needs_most(lengths: list[int], more: int) -> None:
    own = len(partition(lengths, max(lengths)))
    wanted = min(own + more, len(lengths))
    parts = partition(lengths, max(lengths), lambda count: max(count, wanted))
    assert len(parts) == wanted and all(parts)
    assert sorted(index for part in parts for index in part) == list(range(len(lengths)))


def test_too_few_or_too_long_sequences_are_refused() -> None:
    with pytest.raises(ValueError, match="another rank needs 3 micro-batches, and this one has 2 sequences"):
        partition([4, 4], 8, lambda _: 3)
    with pytest.raises(ValueError, match="a sequence of 9 tokens is longer than a micro-batch, 8"):
        partition([9, 4], 8)


def test_packed_micro_batches_are_unchanged() -> None:
    lengths = [40, 4, 4, 4, 4, 4]
    data = batch(lengths, use_remove_padding=True, max_token_len_per_gpu=64)
    _, indices = prepare_micro_batches(data)
    original = utils.rearrange_micro_batches.__wrapped__
    assert indices == original(data, max_token_len=64)[1]


def test_unpatched_padding_still_exceeds_the_limit() -> None:
    data = batch([40, 4, 4, 4, 4, 4], use_remove_padding=False, max_token_len_per_gpu=64)
    micro_batches, _ = utils.rearrange_micro_batches.__wrapped__(data, max_token_len=64)
    assert max(padded_sizes(micro_batches)) == 240
