"""The FLOPs that MFU is based on equal torch's count, for a model with random weights of every family."""

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForImageTextToText, AutoProcessor

from benchmarks.gpu.model_flops import flops
from benchmarks.gpu.random_model import FAMILIES, TINY_PREFIX, write_processor


@pytest.mark.parametrize("size", [(256, 320), (352, 256)], ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_flops_equal_torchs_count(family: str, size: tuple[int, int], tmp_path: Path) -> None:
    config = write_processor(f"{TINY_PREFIX}{family}", tmp_path)
    processor = AutoProcessor.from_pretrained(tmp_path)
    batch = processor(
        images=[Image.new("RGB", size, "white")],
        text=["<|vision_start|><|image_pad|><|vision_end|> what is the area ?"],
        return_tensors="pt",
    )
    model = AutoModelForImageTextToText.from_config(config, attn_implementation="eager")
    with FlopCounterMode(display=False) as counter:
        logits = model(**batch).logits
        forward = counter.get_total_flops()
        logits.sum().backward()
    _, rows, columns = batch["image_grid_thw"][0].tolist()
    formula = flops(config, batch["input_ids"].shape[1], rows, columns)
    # Eager attention computes the full square.
    formula = replace(formula, causal=2 * formula.causal)
    assert formula.forward == pytest.approx(forward, rel=0.01)
    assert formula.update == pytest.approx(counter.get_total_flops(), rel=0.01)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_tokenizer_fills_the_vocabulary_and_keeps_the_tiny_models_words(family: str, tmp_path: Path) -> None:
    config = write_processor(f"{TINY_PREFIX}{family}", tmp_path)
    tokenizer = AutoProcessor.from_pretrained(tmp_path).tokenizer
    assert len(tokenizer) == config.text_config.vocab_size
    assert tokenizer("what is the area ?")["input_ids"] != [tokenizer.unk_token_id] * 5
    assert tokenizer.decode(tokenizer("what is 12")["input_ids"]) == "what is 12"
    last = config.text_config.vocab_size - 1
    assert tokenizer.decode([last]) == f"madeup{last}"
    for name in ("image", "video"):
        assert getattr(config, f"{name}_token_id") == tokenizer.convert_tokens_to_ids(f"<|{name}_pad|>")
    assert config.text_config.eos_token_id == tokenizer.eos_token_id
