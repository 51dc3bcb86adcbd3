"""veRL's SFT trainer gets the prompt of a rollout and learns only the response and the end of its turn."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from torch.utils.data import DataLoader
from verl.trainer.sft_trainer import create_sft_dataset
from verl.utils import hf_processor
from verl.utils.dataset.dataset_utils import SFTTensorCollator
from verl.utils.tokenizer.continuous_token_wiring import create_continuous_token_builder

from mmupt.evaluation.messages import engine_prompt
from mmupt_data.figure_task import draw_figure, encode_png, sample_figures
from verl_ext.datasets.response_dataset import ResponseDataset
from verl_ext.datasets.response_tokens import turn_tokens
from verl_ext.rollout.shared_prompt import continued

MODEL = "recipes/mmupt/tiny/model"
PROCESSOR = hf_processor(MODEL)
TOKENIZER = PROCESSOR.tokenizer
IMAGE = TOKENIZER.convert_tokens_to_ids("<|image_pad|>")
FIGURES = [encode_png(draw_figure(figure)) for figure in sample_figures("train", 3, 0)]
WIDE = encode_png(Image.new("RGB", (300, 60)))


def row(id: str, question: str, response: str, *images: bytes) -> dict[str, Any]:
    prompt = [{"role": "user", "content": question}]
    return {"id": id, "prompt": prompt, "images": [{"bytes": image} for image in images], "response": response}


ROWS = [
    row("one image", "<image>what is the sum ?", "2 + 4 = 6 . so \\boxed{6}", FIGURES[0]),
    row("two images", "<image><image>what is the total ?", "so \\boxed{12}", FIGURES[1], WIDE),
    row("text only", "what is the sum of 2 and 4 ?", "so \\boxed{6}"),
    row("same length", "<image>what is the sum ?", "2 + 3 = 5 . so \\boxed{5}", FIGURES[2]),
]


def load(folder: Path, rows: list[dict[str, Any]], **changes: Any) -> ResponseDataset:
    file = folder / "responses.parquet"
    pq.write_table(pa.Table.from_pylist(rows), file)
    config: DictConfig = OmegaConf.create(
        {
            "custom_cls": {"path": "pkg://verl_ext.datasets.response_dataset", "name": "ResponseDataset"},
            "cache_dir": str(folder / "cache"),
            "instruction": None,
            "min_pixels": None,
            "max_pixels": None,
            "max_length": 512,
            "seed": 1,
            **changes,
        }
    )
    return create_sft_dataset(str(file), config, TOKENIZER, PROCESSOR)


def by_id(dataset: ResponseDataset) -> dict[str, dict[str, Any]]:
    return {id: dataset[number] for number, id in enumerate(dataset.dataframe["id"])}


def test_only_the_response_and_the_end_of_its_turn_are_learnt(tmp_path: Path) -> None:
    for id, item in by_id(load(tmp_path, ROWS)).items():
        (response,) = (source["response"] for source in ROWS if source["id"] == id)
        learnt = item["input_ids"][item["loss_mask"].bool()].tolist()
        assert learnt == [*TOKENIZER.encode(response, add_special_tokens=False), TOKENIZER.eos_token_id]
        assert item["input_ids"].tolist()[-len(learnt) :] == learnt
        assert TOKENIZER.decode(learnt, skip_special_tokens=True) == response


@pytest.mark.parametrize("source", ROWS, ids=lambda source: source["id"])
def test_the_prompt_equals_that_of_a_rollout_and_of_an_evaluation(tmp_path: Path, source: dict[str, Any]) -> None:
    limits = {"min_pixels": 28 * 28 * 2, "max_pixels": 28 * 28 * 40}
    item = load(tmp_path, [source], instruction="think .", **limits)[0]
    evaluated = engine_prompt(source, PROCESSOR, limits, "think .")
    images = evaluated.get("multi_modal_data", {}).get("image")
    tokens, features = rollout(f"{source['prompt'][0]['content'].replace('<image>', '')} think .", images)
    assert item["input_ids"][: len(tokens)].tolist() == tokens
    assert not item["loss_mask"][: len(tokens)].any() and item["loss_mask"][len(tokens) :].all()
    # vLLM expands the placeholder of an image itself.
    collapsed = [token for before, token in pairwise([None, *tokens]) if not before == token == IMAGE]
    assert collapsed == evaluated["prompt_token_ids"]
    assert item["multi_modal_inputs"].keys() == ({"pixel_values", "image_grid_thw"} if images else set())
    for name, value in item["multi_modal_inputs"].items():
        assert torch.equal(value, features[name])
    response = int(item["loss_mask"].sum())
    assert torch.equal(item["position_ids"], continued(positions(tokens, features), response)[0])


def rollout(question: str, images: list[Image.Image] | None) -> tuple[list[int], dict[str, Any]]:
    """Return the tokens and the processor's other outputs that veRL's agent loop computes for a prompt."""
    builder = create_continuous_token_builder(TOKENIZER, hf_model_type="qwen2_5_vl", processor=PROCESSOR)
    parts = [*({"type": "image", "image": image} for image in images or ()), {"type": "text", "text": question}]
    features: dict[str, Any] = {}
    message = {"role": "user", "content": parts}
    return builder.build_initial_tokens([message], images=images, mm_inputs_out=features), features


def positions(tokens: list[int], features: dict[str, Any]) -> torch.Tensor:
    """Compute position ids like veRL's agent loop, int64 (1, 4, tokens)."""
    ids = torch.tensor([tokens])
    vision, _ = PROCESSOR.get_rope_index(
        input_ids=ids,
        mm_token_type_ids=features["mm_token_type_ids"],
        image_grid_thw=features.get("image_grid_thw"),
        attention_mask=torch.ones_like(ids),
    )
    return torch.cat([torch.arange(len(tokens)).view(1, 1, -1), vision.transpose(0, 1)], dim=1)


@pytest.mark.parametrize("spelled", ["<|im_end|>", "<|vision_start|><|image_pad|><|vision_end|>", "<image>"])
def test_special_tokens_and_placeholders_that_a_response_spells_out_are_text(tmp_path: Path, spelled: str) -> None:
    (item,) = by_id(load(tmp_path, [row("a", "<image>sum ?", f"so {spelled} .", FIGURES[0])])).values()
    learnt = item["input_ids"][item["loss_mask"].bool()].tolist()
    assert not set(learnt[:-1]) & set(TOKENIZER.all_special_ids) - {TOKENIZER.unk_token_id}
    assert learnt == turn_tokens(TOKENIZER, f"so {spelled} .")


def test_the_seed_determines_the_order_of_rows(tmp_path: Path) -> None:
    rows = [row(str(number), "<image>sum ?", "so \\boxed{1}", FIGURES[0]) for number in range(8)]

    def order(seed: int) -> list[str]:
        return list(load(tmp_path, rows, seed=seed).dataframe["id"])

    assert order(1) == order(1) != order(2)
    assert sorted(order(2)) == sorted(order(1))


def test_a_sequence_that_is_too_long_is_named(tmp_path: Path) -> None:
    dataset = load(tmp_path, ROWS[:1], max_length=20)
    with pytest.raises(ValueError, match=r"row 'one image' has \d+ tokens: set data\.max_length to more"):
        dataset[0]


@pytest.mark.parametrize("workers", [0, 1])
def test_sequences_of_any_lengths_reach_the_trainer_complete(tmp_path: Path, workers: int) -> None:
    from verl.utils import tensordict_utils as tu

    for rows in (ROWS, [ROWS[0], ROWS[3]], [ROWS[2]] * 2, [ROWS[2], ROWS[0]]):
        dataset = load(tmp_path, rows)
        collate = SFTTensorCollator("no_padding")
        (batch,) = DataLoader(dataset, len(rows), collate_fn=collate, num_workers=workers)
        data = tu.get_tensordict(tensor_dict=batch, non_tensor_dict={})
        tu.maybe_fix_3d_position_ids(data)
        positions = tu.index_select_tensor_dict(data, list(range(len(rows))))["position_ids"]
        for number in range(len(rows)):
            assert torch.equal(positions[number], dataset[number]["position_ids"])
