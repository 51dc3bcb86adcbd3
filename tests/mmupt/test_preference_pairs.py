"""Preference pairs: tensors of prompts, images and responses, and pairs that are refused."""

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
def wide() -> Any:
    """A processor that leaves image sizes to `LIMITS`; the tiny model's processor makes all images 84 x 84 px."""
    processor = AutoProcessor.from_pretrained(FOLDER)
    processor.image_processor.size = {"shortest_edge": 28 * 28 * 4, "longest_edge": 28 * 28 * 1000}
    return processor


def completion(processor: Any, batch: dict[str, torch.Tensor], sequence: int) -> tuple[str, str]:
    """The completion of a sequence and its last token, decoded."""
    *response, end = batch["input_ids"][sequence][batch["completion_mask"][sequence].bool()]
    return processor.tokenizer.decode(response), processor.tokenizer.decode(end)


# Tensors


def test_the_prompt_equals_the_rollouts_prompt(wide: Any) -> None:
    row = pair()
    batch = PairCollator(wide, LIMITS)([row])
    rollout = engine_prompt(row, wide, LIMITS)
    for ids, mask in zip(batch["input_ids"], batch["completion_mask"], strict=True):
        prompt = ids[: int(mask.argmax())]
        assert qwen2_5_vl_dedup_image_tokens(prompt.tolist(), wide) == rollout["prompt_token_ids"]
    pixels = wide.image_processor(images=rollout["multi_modal_data"]["image"], return_tensors="pt")["pixel_values"]
    assert torch.equal(batch["pixel_values"], torch.cat([pixels, pixels]))


def test_the_completion_is_the_response_and_its_end_token(processor: Any) -> None:
    rows = [pair(0), pair(1)]
    batch = PairCollator(processor)(rows)
    texts = [row["chosen"] for row in rows] + [row["rejected"] for row in rows]
    assert [completion(processor, batch, index) for index in range(4)] == [(text, "<|im_end|>") for text in texts]


def test_padding_is_on_the_right_and_masked_out(processor: Any) -> None:
    batch = PairCollator(processor)([pair(rejected="7")])
    padding = batch["attention_mask"] == 0
    assert padding[1].any() and not padding[0].any()
    assert not batch["completion_mask"][padding].any()
    assert batch["attention_mask"].diff().amax() <= 0


def test_every_sequence_has_the_images_of_its_row(processor: Any) -> None:
    batch = PairCollator(processor)([pair(0), pair(1)])
    first, second, *rejected = batch["pixel_values"].chunk(4)
    assert not torch.equal(first, second)
    assert torch.equal(torch.cat([first, second]), torch.cat(rejected))
    assert batch["image_grid_thw"].tolist() == [[1, 6, 6]] * 4


def test_a_batch_can_mix_rows_with_and_without_images(processor: Any) -> None:
    text_only = pair(1, prompt=[{"role": "user", "content": "what is the area ?"}], images=[])
    mixed = PairCollator(processor)([text_only, pair(0)])
    assert mixed["image_grid_thw"].tolist() == [[1, 6, 6]] * 2
    assert (mixed["mm_token_type_ids"] == 1).sum(dim=1).tolist() == [0, 9, 0, 9]
    assert "pixel_values" not in PairCollator(processor)([text_only])


def test_a_special_token_in_the_text_of_a_response_is_tokenized_as_characters(processor: Any) -> None:
    batch = PairCollator(processor)([pair(chosen="<|image_pad|> <|im_end|> 3")])
    assert (batch["input_ids"] == processor.image_token_id).sum(dim=1).tolist() == [9, 9]
    end = processor.tokenizer.eos_token_id
    assert (batch["input_ids"][0][batch["completion_mask"][0].bool()] == end).sum() == 1


def test_a_sequence_has_the_same_logits_in_a_batch_as_alone(processor: Any) -> None:
    model = AutoModelForImageTextToText.from_pretrained(FOLDER).eval()
    collator = PairCollator(processor)

    def logits(rows: list[dict[str, Any]], sequence: int) -> torch.Tensor:
        batch = collator(rows)
        mask = batch.pop("completion_mask")[sequence].bool()
        with torch.no_grad():
            return model(**batch).logits[sequence][mask]

    rows = [pair(0), pair(1, rejected="7")]
    torch.testing.assert_close(logits(rows, 3), logits(rows[1:], 1), rtol=1e-4, atol=1e-4)


def test_the_length_of_a_pair_is_the_length_of_its_longer_sequence(wide: Any) -> None:
    for limits in (LIMITS, {}):
        collator = PairCollator(wide, limits)
        for row in (pair(0), pair(1), pair(0, rejected="7 " * 40)):
            assert collator.length(row) == collator([row])["input_ids"].shape[1]


# Checks


def test_usable_pairs_pass(tmp_path: Path) -> None:
    check_pairs(write_pairs(tmp_path / "pairs.parquet", [pair(0), pair(1, rejected="")]), alike=True)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"rejected": pair(1)["chosen"]}, "same response"),
        ({"chosen": None}, "chosen is null"),
        ({"images": []}, "1 <image> in the prompt, 0 images"),
        ({"images": [{"bytes": b"GIF87a"}]}, "unreadable image"),
    ],
)
def test_an_unusable_pair_is_named(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    file = write_pairs(tmp_path / "pairs.parquet", [pair(0), pair(1, **changed)])
    with pytest.raises(ValueError, match=rf"pairs\.parquet, row 1, id figure-1: .*{message}"):
        check_pairs(file, alike=False)


def test_several_processes_refuse_a_mix_of_rows_with_and_without_images(tmp_path: Path) -> None:
    text_only = pair(1, prompt=[{"role": "user", "content": "what is the area ?"}], images=[])
    file = write_pairs(tmp_path / "pairs.parquet", [pair(0), text_only])
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
