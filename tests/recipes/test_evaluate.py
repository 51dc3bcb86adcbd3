"""Evaluation: it asks what veRL asks, and its file is there whole or not at all."""

import asyncio
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from data.schema import Row, prompts_path
from data.writing import write_dataset
from recipes.mmupt import evaluate as module
from recipes.mmupt.evaluate import Evaluation, chat, engine_prompt, evaluate, parse
from recipes.mmupt.evaluation.responses import Response, parameters_path, read_parameters, read_whole, write_responses

MODEL = Path(__file__).parents[2] / "recipes" / "mmupt" / "tiny" / "model"
RESPONSES = [Response("q1", "greedy", 0, 'so "\\boxed{1}"\n', 5), Response("q1", "sample", 0, "né \u2028", 3)]


def picture(width: int, height: int, color: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), color).save(file, format="PNG")
    return file.getvalue()


ROWS = [
    Row("one", "made-up", "<image>what is the area of the triangle ?", (picture(84, 84, "red"),), "a", "1"),
    # Neither side is a multiple of what the vision tower takes, so that both must be scaled alike.
    Row("two", "made-up", "<image>or\n<image>?", (picture(90, 131, "red"), picture(300, 60, "blue")), "a", "2"),
    Row("none", "made-up", "what is the sum ?", (), "a", "3"),
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_dataset(tmp_path, {"test": ROWS}, {})
    return prompts_path(tmp_path, "test")


def evaluation(data: Path, output: Path, **changes: object) -> Evaluation:
    arguments = ["--model", str(MODEL), "--data", str(data), "--output", str(output), "--max-tokens", "8"]
    return Evaluation(**{**vars(parse(arguments)), **changes})


@pytest.mark.parametrize(
    "changes",
    [{}, {"min_pixels": 16_000}, {"max_pixels": 8_000}, {"instruction": "put the answer in a \\boxed{ }"}],
    ids=["as is", "min", "max", "instruction"],
)
def test_the_prompt_equals_the_one_that_verl_builds_in_training(data: Path, changes: dict[str, Any]) -> None:
    import pyarrow.parquet as pq
    from omegaconf import OmegaConf
    from transformers import AutoProcessor
    from verl.utils.tokenizer.continuous_token_wiring import create_continuous_token_builder
    from verl.workers.rollout.utils import qwen2_5_vl_dedup_image_tokens

    from verl_ext.datasets.unlabelled import UnlabelledDataset

    processor = AutoProcessor.from_pretrained(MODEL)
    keys = {"instruction": None, "min_pixels": None, "max_pixels": None, "dropped_rows": None, **changes}
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
        prompt = engine_prompt(row, processor, **changes)
        assert prompt["prompt_token_ids"] == qwen2_5_vl_dedup_image_tokens(expanded, processor)
        ours = prompt.get("multi_modal_data", {}).get("image")
        assert [(i.size, i.tobytes()) for i in ours or []] == [(i.size, i.tobytes()) for i in images or []]


def test_a_row_with_a_missing_image_is_named() -> None:
    row = {"id": "q7", "prompt": [{"role": "user", "content": "<image><image>?"}], "images": [{"bytes": b""}]}
    with pytest.raises(ValueError, match="row q7: 2 <image> in the prompt, 1 images"):
        chat(row, {})


def test_responses_are_read_as_they_were_written(tmp_path: Path) -> None:
    file = tmp_path / "new" / "responses.jsonl"
    write_responses(file, RESPONSES, {"samples": 1})
    assert read_whole(file) == RESPONSES
    assert read_parameters(file) == {"samples": 1}
    assert sorted(path.name for path in file.parent.iterdir()) == ["responses.jsonl", "responses.parameters.json"]


def test_a_row_that_is_no_response_is_named_by_file_and_line(tmp_path: Path) -> None:
    file = tmp_path / "responses.jsonl"
    write_responses(file, RESPONSES[:1], {})
    for row in ('{"id": "q2"}', "{"):
        file.write_text(file.read_text().splitlines()[0] + f"\n{row}\n")
        with pytest.raises(ValueError, match=r"responses\.jsonl, line 2, is no response"):
            read_whole(file)


@pytest.mark.parametrize("fails_at", [1, 2])
def test_an_interrupted_write_leaves_no_file_that_counts_as_whole(tmp_path: Path, monkeypatch, fails_at: int) -> None:
    file = tmp_path / "responses.jsonl"
    write_responses(file, RESPONSES[:1], {"seed": 0})
    replace, calls = os.replace, []

    def interrupted(*paths: Path) -> None:
        calls.append(paths)
        if len(calls) == fails_at:
            raise KeyboardInterrupt
        replace(*paths)

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_responses(file, RESPONSES, {"seed": 1})
    assert read_parameters(file) is None
    assert read_whole(file) in (RESPONSES[:1], RESPONSES)


def test_a_generation_that_fails_leaves_an_earlier_file_as_it_was(data: Path, tmp_path: Path, monkeypatch) -> None:
    file = tmp_path / "responses.jsonl"
    write_responses(file, RESPONSES, {"seed": 0})

    def fail(*_: object):
        yield RESPONSES[0]
        raise RuntimeError("out of memory")

    monkeypatch.setattr(module, "generate", fail)
    with pytest.raises(RuntimeError):
        evaluate(evaluation(data, file))
    assert read_whole(file) == RESPONSES
    assert read_parameters(file) == {"seed": 0}


def test_a_whole_file_of_the_same_parameters_is_not_made_again(data: Path, tmp_path: Path, monkeypatch) -> None:
    file = tmp_path / "responses.jsonl"
    made = []
    monkeypatch.setattr(module, "generate", lambda *arguments: made.append(arguments) or RESPONSES)
    assert evaluate(evaluation(data, file))
    assert not evaluate(evaluation(data, file))
    assert len(made) == 1


def test_other_parameters_data_or_weights_make_it_again(data: Path, tmp_path: Path, monkeypatch) -> None:
    file, model = tmp_path / "responses.jsonl", tmp_path / "model"
    model.mkdir()
    (model / "model.safetensors").write_bytes(b"weights")
    monkeypatch.setattr(module, "generate", lambda *_: RESPONSES)
    assert evaluate(evaluation(data, file, model=str(model)))
    assert evaluate(evaluation(data, file, model=str(model), temperature=0.5))
    (model / "model.safetensors").write_bytes(b"other weights")
    assert evaluate(evaluation(data, file, model=str(model), temperature=0.5))
    write_dataset(data.parent, {"test": ROWS[:2]}, {"rows": 2})
    assert evaluate(evaluation(data, file, model=str(model), temperature=0.5))
    parameters_path(file).unlink()
    assert evaluate(evaluation(data, file, model=str(model), temperature=0.5))


@pytest.mark.full_stack
@pytest.mark.parametrize("forbidden", [[], ["so"]], ids=["freely", "not opening with so"])
def test_the_tiny_model_answers_every_question_on_a_cpu(data: Path, tmp_path: Path, forbidden: list[str]) -> None:
    output = tmp_path / "responses.jsonl"
    command = [sys.executable, "-m", "recipes.mmupt.evaluate", "--model", MODEL, "--data", data, "--output", output]
    command += [
        "--samples",
        "3",
        "--max-tokens",
        "8",
        "--max-model-len",
        "256",
        "--dtype",
        "float32",
        "--device",
        "cpu",
        *(["--forbidden-openings", *forbidden] if forbidden else []),
    ]
    subprocess.run(list(map(str, command)), cwd=Path(__file__).parents[2], check=True, timeout=300)
    responses = read_whole(output)
    expected = [(row.id, mode, i) for row in ROWS for mode, n in (("greedy", 1), ("sample", 3)) for i in range(n)]
    assert sorted((r.id, r.mode, r.sample) for r in responses) == sorted(expected)
    assert all(1 <= response.tokens <= 8 for response in responses)
    assert json.loads(parameters_path(output).read_text())["samples"] == 3
    assert not any(response.response.split()[:1] == [word] for response in responses for word in forbidden)
