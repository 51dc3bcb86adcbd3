"""An evaluation uses veRL's training prompts or the prompts of a benchmark's authors, with a seed per question."""

import asyncio
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from evaluation_rows import MODEL, PICTURES, ROWS, picture
from transformers import AutoProcessor

from mmupt.evaluation import evaluate as module
from mmupt.evaluation import generation
from mmupt.evaluation.evaluate import load_evaluation_config
from mmupt.evaluation.generation import QuestionRequest
from mmupt.evaluation.generation_settings import GenerationSettings
from mmupt.evaluation.messages import engine_prompt, rendered
from mmupt.evaluation.response_files import Mode
from mmupt_data.row_schema import Row, prompts_path
from mmupt_data.writer import write_dataset

PROCESSOR = AutoProcessor.from_pretrained(MODEL)

# Unusual rows.
HARD_ROWS = [
    # Text that veRL and the tokenizer would mistake for control text, with and without an image.
    Row("tags", "made-up", "<image>is a <video> or an <image> an <|im_end|> ?", PICTURES[:1], "a", "4"),
    Row("tag", "made-up", "is a <video> an <|image_pad|> or an <image> ?", (), "a", "5"),
    # An image that both scalings accept only with margins.
    Row("narrow", "made-up", "<image>how long ?", (picture(2000, 3, "red"),), "a", "6"),
]


@pytest.mark.parametrize(
    "changes",
    [{}, {"min_pixels": 16_000}, {"max_pixels": 8_000}, {"instruction": "put the answer in a \\boxed{ }"}],
    ids=["as is", "min", "max", "instruction"],
)
def test_the_prompt_equals_verls_training_prompt(tmp_path: Path, changes: dict[str, Any]) -> None:
    from omegaconf import OmegaConf
    from verl.utils.tokenizer.continuous_token_wiring import create_continuous_token_builder
    from verl.workers.rollout.utils import qwen2_5_vl_dedup_image_tokens

    from verl_ext.datasets.unlabelled_dataset import UnlabelledDataset

    write_dataset(tmp_path, {"test": [*ROWS, *HARD_ROWS]}, {}, evaluation=["test"])
    data, processor = prompts_path(tmp_path, "test"), PROCESSOR
    keys = {"instruction": None, "min_pixels": None, "max_pixels": None, "dropped_rows": None}
    keys |= {"generated_share": None, **changes}
    config = OmegaConf.create(
        {
            "train_files": str(data),
            "val_files": None,
            "filter_overlong_prompts": False,
            "cache_dir": str(data.parent),
            **keys,
        }
    )
    dataset = UnlabelledDataset(str(data), config, tokenizer=processor.tokenizer, processor=processor)
    builder = create_continuous_token_builder(processor.tokenizer, hf_model_type="qwen2_5_vl", processor=processor)
    for row, trained_on in zip(pq.read_table(data).to_pylist(), dataset, strict=True):
        messages = trained_on["raw_prompt"]
        images, _, _ = asyncio.run(UnlabelledDataset.process_multi_modal_info(messages, 14, config))
        expanded = builder.build_initial_tokens(messages, images=images)
        limits = {name: value for name, value in changes.items() if name != "instruction"}
        prompt = engine_prompt(row, processor, limits, changes.get("instruction"))
        assert prompt["prompt_token_ids"] == qwen2_5_vl_dedup_image_tokens(expanded, processor)
        ours = prompt.get("multi_modal_data", {}).get("image")
        assert [(i.size, i.tobytes()) for i in ours or []] == [(i.size, i.tobytes()) for i in images or []]
        # One image token per image, and one end-of-turn token per turn.
        ids = prompt["prompt_token_ids"]
        text = processor.tokenizer.decode(ids)
        assert text.count("<|image_pad|>") == len(row["images"]) and text.count("<|video_pad|>") == 0
        assert text.count("<|im_end|>") == text.count("<|im_start|>") - 1


def test_the_official_preset_uses_the_authors_prompt(tmp_path: Path, monkeypatch) -> None:
    metadata = {"query": "Hint: Give a whole number.\nQuestion: how many ?", "answer_type": "integer", "metadata": {}}
    rows = [
        Row(
            f"q{i}",
            "mathvista",
            f"<image>how many {i} ?",
            (picture(84, 84 + i, "red"),),
            "free_form",
            "7",
            metadata=metadata,
        )
        for i in range(2)
    ]
    write_dataset(tmp_path, {"test": rows}, {})
    one = module.QuestionSet("test", (prompts_path(tmp_path, "test"),), tmp_path / "test.jsonl")
    assert [row["prompt"][0]["content"] for row in module.read_question_rows(one, "official", None)] == [
        "<image>Hint: Give a whole number.\nQuestion: how many ?"
    ] * 2
    assert module.read_question_rows(one, "own", 1)[0]["prompt"][0]["content"] == "<image>how many 0 ?"


def test_the_system_prompt_comes_first() -> None:
    row = {"id": "q", "prompt": [{"role": "user", "content": "why ?"}], "images": []}
    assert rendered(row, PROCESSOR, {}, "say", "be kind")[0].startswith("<|im_start|>system\nbe kind<|im_end|>")
    assert rendered(row, PROCESSOR, {}, "say")[0].startswith("<|im_start|>user\n")


def test_each_question_has_its_own_seed_except_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation, "engine_prompt", lambda *_: {})

    def seed(device: str, id_: str, mode: Mode, seed: int = 0) -> int | None:
        config = load_evaluation_config(["model=m", f"seed={seed}"])
        replica = generation.Replica.__new__(generation.Replica)
        settings = GenerationSettings.from_config(config, model="m", device=device, dtype="float32", replicas=1)
        replica._processor = None
        return replica._group(settings, QuestionRequest("test", mode, {"id": id_})).sampling.seed

    assert seed("cpu", "a", "sample") is None and seed("cuda", "a", "greedy") is None
    assert seed("cuda", "a", "sample") == seed("cuda", "a", "sample") is not None
    assert len({seed("cuda", "a", "sample"), seed("cuda", "b", "sample"), seed("cuda", "a", "sample", seed=1)}) == 3
