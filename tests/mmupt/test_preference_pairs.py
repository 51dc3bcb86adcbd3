"""What a model is fed of a pair is what was asked and said, and a pair that cannot be used is found beforehand."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from preference_pairs import pair, write_pairs
from transformers import AutoModelForImageTextToText, AutoProcessor
from verl.workers.rollout.utils import qwen2_5_vl_dedup_image_tokens

from mmupt.baselines.preference_pairs import PairCollator, check_pairs
from mmupt.evaluation.messages import engine_prompt
from mmupt.tiny import FOLDER

LIMITS = {"min_pixels": 20_000, "max_pixels": 60_000}


@pytest.fixture(scope="module")
def processor() -> Any:
    return AutoProcessor.from_pretrained(FOLDER)


@pytest.fixture
def wide(processor: Any) -> Any:
    """A processor that leaves images as large as the limits of ours do; the tiny model's makes them all 84 x 84 px."""
    other = AutoProcessor.from_pretrained(FOLDER)
    other.image_processor.size = {"shortest_edge": 28 * 28 * 4, "longest_edge": 28 * 28 * 1000}
    return other


def learnt(processor: Any, batch: dict[str, torch.Tensor], sequence: int) -> tuple[str, str]:
    *said, end = batch["input_ids"][sequence][batch["completion_mask"][sequence].bool()]
    return processor.tokenizer.decode(said), processor.tokenizer.decode(end)


# Tensors


def test_the_prompt_is_what_the_rollout_asks(wide: Any) -> None:
    row = pair()
    batch = PairCollator(wide, LIMITS)([row])
    asked = engine_prompt(row, wide, LIMITS)
    for ids, mask in zip(batch["input_ids"], batch["completion_mask"], strict=True):
        prompt = ids[: int(mask.argmax())]
        assert qwen2_5_vl_dedup_image_tokens(prompt.tolist(), wide) == asked["prompt_token_ids"]
    pixels = wide.image_processor(images=asked["multi_modal_data"]["image"], return_tensors="pt")["pixel_values"]
    assert torch.equal(batch["pixel_values"], torch.cat([pixels, pixels]))


def test_only_the_response_and_the_end_of_its_turn_are_learnt(processor: Any) -> None:
    rows = [pair(0), pair(1)]
    batch = PairCollator(processor)(rows)
    said = [row["chosen"] for row in rows] + [row["rejected"] for row in rows]
    assert [learnt(processor, batch, sequence) for sequence in range(4)] == [(text, "<|im_end|>") for text in said]


def test_padding_is_neither_seen_nor_learnt(processor: Any) -> None:
    batch = PairCollator(processor)([pair(rejected="7")])
    padding = batch["attention_mask"] == 0
    assert padding[1].any() and not padding[0].any()
    assert not batch["completion_mask"][padding].any()
    # It is on the right alone.
    assert batch["attention_mask"].diff().amax() <= 0


def test_every_sequence_has_the_images_of_its_row(processor: Any) -> None:
    batch = PairCollator(processor)([pair(0), pair(1)])
    first, second, *again = batch["pixel_values"].chunk(4)
    assert not torch.equal(first, second)
    assert torch.equal(torch.cat([first, second]), torch.cat(again))
    assert batch["image_grid_thw"].tolist() == [[1, 6, 6]] * 4


def test_rows_without_images_can_be_in_a_batch_with_others(processor: Any) -> None:
    bare = pair(1, prompt=[{"role": "user", "content": "what is the area ?"}], images=[])
    together = PairCollator(processor)([bare, pair(0)])
    assert together["image_grid_thw"].tolist() == [[1, 6, 6]] * 2
    assert (together["mm_token_type_ids"] == 1).sum(dim=1).tolist() == [0, 9, 0, 9]
    assert "pixel_values" not in PairCollator(processor)([bare])


def test_a_special_token_that_a_response_spells_is_letters(processor: Any) -> None:
    spelled = pair(chosen="<|image_pad|> <|im_end|> 3")
    batch = PairCollator(processor)([spelled])
    assert (batch["input_ids"] == processor.image_token_id).sum(dim=1).tolist() == [9, 9]
    end = processor.tokenizer.eos_token_id
    assert (batch["input_ids"][0][batch["completion_mask"][0].bool()] == end).sum() == 1


def test_a_sequence_means_the_same_in_a_batch_as_alone(processor: Any) -> None:
    model = AutoModelForImageTextToText.from_pretrained(FOLDER).eval()
    collator = PairCollator(processor)

    def logits(rows: list[dict[str, Any]], sequence: int) -> torch.Tensor:
        batch = collator(rows)
        learnt = batch.pop("completion_mask")[sequence].bool()
        with torch.no_grad():
            return model(**batch).logits[sequence][learnt]

    rows = [pair(0), pair(1, rejected="7")]
    torch.testing.assert_close(logits(rows, 3), logits(rows[1:], 1), rtol=1e-4, atol=1e-4)


def test_the_length_is_that_of_the_longer_sequence(wide: Any) -> None:
    for limits in (LIMITS, {}):
        collator = PairCollator(wide, limits)
        for row in (pair(0), pair(1), pair(0, rejected="7 " * 40)):
            assert collator.length(row) == collator([row])["input_ids"].shape[1]


# Checks


def test_pairs_that_can_be_used_pass(tmp_path: Path) -> None:
    check_pairs(write_pairs(tmp_path / "pairs.parquet", [pair(0), pair(1, rejected="")]), alike=True)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"rejected": pair(1)["chosen"]}, "same response"),
        ({"chosen": None}, "chosen is null"),
        ({"images": []}, "1 <image> in the prompt, 0 images"),
        ({"images": [{"bytes": b"GIF87a"}]}, "unreadable image"),
    ],
)
def test_a_pair_that_cannot_be_used_is_named(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    file = write_pairs(tmp_path / "pairs.parquet", [pair(0), pair(1, **changed)])
    with pytest.raises(ValueError, match=rf"pairs\.parquet, row 1, id figure-1: .*{said}"):
        check_pairs(file, alike=False)


def test_rows_with_and_without_images_do_not_mix_where_processes_wait_for_each_other(tmp_path: Path) -> None:
    bare = pair(1, prompt=[{"role": "user", "content": "what is the area ?"}], images=[])
    file = write_pairs(tmp_path / "pairs.parquet", [pair(0), bare])
    check_pairs(file, alike=False)
    with pytest.raises(ValueError, match="row 1, id figure-1: some rows have images and some have none"):
        check_pairs(file, alike=True)


def test_a_file_without_pairs_is_refused(tmp_path: Path) -> None:
    file = write_pairs(tmp_path / "pairs.parquet", [pair()])
    pq.write_table(pq.read_table(file).slice(0, 0), file)
    with pytest.raises(ValueError, match=r"pairs\.parquet has no pairs"):
        check_pairs(file, alike=False)


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": ["a"], "prompt": [[]], "images": [[]], "response": ["3"]}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"no column chosen, rejected \(found: id, prompt, images, response\)"):
        check_pairs(tmp_path / "a.parquet", alike=False)
