"""Let a model answer every question of a data set, greedily and k times by sampling, with vLLM.

    python -m recipes.mmupt.evaluate --model DIR --data test.parquet --output responses.jsonl --samples 8

Prompts are what veRL makes of the same rows, so that evaluation and training ask alike. Whether a response is right is
not decided here: `recipes.mmupt.report` reads the responses and the truth.
"""

import argparse
import hashlib
import os
import re
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
from omegaconf import OmegaConf
from PIL import Image

from recipes.mmupt.compose import CONFIG_FOLDER
from recipes.mmupt.evaluation.responses import Mode, Response, read_parameters, write_responses

if TYPE_CHECKING:
    from vllm import LLM, SamplingParams, TokensPrompt

# The environment and the engine arguments for vLLM on CPU are declared with the recipes' hardware.
CPU = OmegaConf.load(CONFIG_FOLDER / "hardware" / "cpu.yaml")
# Prompts that are decoded and in the engine's queue at a time: a megapixel image with its patches takes 30 MB.
PROMPTS_AT_ONCE = 256


@dataclass(frozen=True)
class Evaluation:
    """What is asked of which model, and how; field by field what `--help` says."""

    model: str
    data: tuple[Path, ...]
    output: Path
    samples: int
    temperature: float
    top_p: float
    max_tokens: int
    max_model_len: int | None
    instruction: str | None
    min_pixels: int | None
    max_pixels: int | None
    dtype: str
    seed: int
    device: str
    forbidden_openings: tuple[str, ...] = ()

    def parameters(self) -> dict[str, Any]:
        """What determines the responses, with a fingerprint of every file, as JSON holds it."""
        # Weights may be large: a file of the same name, size and time of change counts as the same.
        weights = {
            file.name: [file.stat().st_size, file.stat().st_mtime_ns]
            for file in sorted(Path(self.model).glob("*"))
            if file.is_file()
        }
        data = {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in self.data}
        fields = {name: value for name, value in asdict(self).items() if name not in {"model", "data", "output"}}
        fields["forbidden_openings"] = list(self.forbidden_openings)
        return {"model": self.model, "weights": weights, "data": data, **fields}


def evaluate(evaluation: Evaluation) -> bool:
    """Write the responses of an evaluation as `recipes.mmupt.evaluation.responses` describes.

    Returns:
        Whether anything was generated: False where the output is already there, made with the same parameters.

    Raises:
        ValueError: a row has another number of images than of `<image>` in its prompt.
    """
    parameters = evaluation.parameters()
    if read_parameters(evaluation.output) == parameters:
        print(f"{evaluation.output}: up to date")
        return False
    rows = [row for file in evaluation.data for row in pq.read_table(file).to_pylist()]
    write_responses(evaluation.output, list(generate(evaluation, rows)), parameters)
    return True


def generate(evaluation: Evaluation, rows: list[dict[str, Any]]) -> Iterator[Response]:
    """Yield the greedy response to every row, which has the columns of `data.schema`, and then its samples."""
    start = time.perf_counter()
    from transformers import AutoProcessor
    from vllm import LLM, SamplingParams

    processor = AutoProcessor.from_pretrained(evaluation.model)
    engine = LLM(
        model=evaluation.model,
        dtype=evaluation.dtype,
        seed=evaluation.seed,
        max_model_len=evaluation.max_model_len,
        limit_mm_per_prompt={"image": max(len(row["images"] or []) for row in rows), "video": 0},
        **(_cpu_engine() if evaluation.device == "cpu" else {}),
    )
    # veRL decodes the tokens of a response by themselves; vLLM would in the context of the prompt, with other spaces.
    greedy = SamplingParams(temperature=0.0, max_tokens=evaluation.max_tokens, detokenize=False)
    sampled = SamplingParams(
        n=evaluation.samples,
        temperature=evaluation.temperature,
        top_p=evaluation.top_p,
        max_tokens=evaluation.max_tokens,
        detokenize=False,
    )
    ready = time.perf_counter()
    print(f"{evaluation.model}: ready after {ready - start:.0f} s", flush=True)
    for first in range(0, len(rows), PROMPTS_AT_ONCE):
        chunk = rows[first : first + PROMPTS_AT_ONCE]
        prompts = [
            engine_prompt(row, processor, evaluation.instruction, evaluation.min_pixels, evaluation.max_pixels)
            for row in chunk
        ]
        sampling = [greedy] * len(chunk) + [sampled] * len(chunk)
        completions = _complete(engine, prompts * 2, sampling, evaluation.forbidden_openings)
        modes: tuple[Mode, Mode] = ("greedy", "sample")
        asked = ((mode, row["id"]) for mode in modes for row in chunk)
        for (mode, id_), tokens_of_prompt in zip(asked, completions, strict=True):
            for index, tokens in enumerate(tokens_of_prompt):
                text = processor.tokenizer.decode(tokens, skip_special_tokens=True)
                yield Response(id_, mode, index, text, len(tokens))
        print(f"{first + len(chunk)} of {len(rows)} questions, {time.perf_counter() - ready:.0f} s", flush=True)


def _complete(
    engine: "LLM", prompts: "list[TokensPrompt]", sampling: "list[SamplingParams]", forbidden_openings: tuple[str, ...]
) -> list[list[list[int]]]:
    """The tokens of the responses to every prompt: prompt x response x token."""
    if not forbidden_openings:
        outputs = engine.generate(prompts, sampling, use_tqdm=False)
        return [[list(completion.token_ids) for completion in output.outputs] for output in outputs]
    # vLLM forbids a word everywhere in a response or nowhere: the first token is drawn by itself, the rest after it.
    first = []
    for parameters in sampling:
        first.append(parameters.clone())
        first[-1].min_tokens = first[-1].max_tokens = 1
        first[-1].bad_words = list(forbidden_openings)
    openings = _complete(engine, prompts, first, ())
    continued, rest = [], []
    for prompt, parameters, group in zip(prompts, sampling, openings, strict=True):
        for opening in group:
            continued.append({**prompt, "prompt_token_ids": [*prompt["prompt_token_ids"], *opening]})
            rest.append(parameters.clone())
            rest[-1].n, rest[-1].max_tokens = 1, parameters.max_tokens - 1
    endings = iter(_complete(engine, continued, rest, ()))
    return [[opening + next(endings)[0] for opening in group] for group in openings]


def _cpu_engine() -> dict[str, Any]:
    rollout = CPU.actor_rollout_ref.rollout
    return {"enforce_eager": rollout.enforce_eager, **rollout.engine_kwargs.vllm}


def engine_prompt(
    row: dict[str, Any],
    processor: Any,
    instruction: str | None = None,
    min_pixels: int | None = None,
    max_pixels: int | None = None,
) -> "TokensPrompt":
    """The prompt of a row as vLLM takes it: token ids with one placeholder an image, and the images themselves.

    `instruction` follows the question after a space. Images are scaled into `min_pixels` .. `max_pixels` (None: no
    limit of ours) by the function that veRL uses.
    """
    from qwen_vl_utils import process_vision_info

    limits = {name: value for name, value in (("min_pixels", min_pixels), ("max_pixels", max_pixels)) if value}
    messages = chat(row, limits, instruction)
    text = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    prompt: TokensPrompt = {"prompt_token_ids": processor.tokenizer(text, add_special_tokens=False)["input_ids"]}
    images, _ = process_vision_info(messages, image_patch_size=processor.image_processor.patch_size)
    if images:
        prompt["multi_modal_data"] = {"image": images}
    return prompt


def chat(row: dict[str, Any], limits: dict[str, int], instruction: str | None = None) -> list[dict[str, Any]]:
    """The messages of a row with every `<image>` replaced by the next of its images, as our veRL dataset does it.

    Raises:
        ValueError: the row has another number of images than of `<image>`.
    """
    images = row["images"] or []
    placeholders = sum(message["content"].count("<image>") for message in row["prompt"])
    if placeholders != len(images):
        raise ValueError(f"row {row['id']}: {placeholders} <image> in the prompt, {len(images)} images")
    *before, question = row["prompt"]
    if instruction is not None:
        question = {**question, "content": f"{question['content']} {instruction}"}
    if not images:
        return [*before, question]
    remaining = iter(images)
    return [
        {
            "role": message["role"],
            "content": [
                {"type": "image", "image": Image.open(BytesIO(next(remaining)["bytes"])), **limits}
                if part == "<image>"
                else {"type": "text", "text": part}
                for part in re.split("(<image>)", message["content"])
                if part
            ],
        }
        for message in (*before, question)
    ]


def parse(arguments: list[str] | None = None) -> Evaluation:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Let a model answer every question of a data set.")
    parser.add_argument("--model", required=True, help="model folder, or its name on the Hugging Face Hub")
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="parquet files of data/schema.py")
    parser.add_argument("--output", type=Path, required=True, help="JSONL file for the responses")
    parser.add_argument("--samples", type=int, default=8, help="sampled responses a question, beside the greedy one")
    parser.add_argument("--temperature", type=float, default=1.0, help="of the sampled responses")
    parser.add_argument("--top-p", type=float, default=1.0, help="of the sampled responses")
    parser.add_argument("--max-tokens", type=int, required=True, help="longest response")
    parser.add_argument("--max-model-len", type=int, help="longest prompt with its response; default: the model's")
    parser.add_argument("--instruction", help="follows every question after a space")
    parser.add_argument("--min-pixels", type=int, help="smaller images are enlarged; default: the processor's limit")
    parser.add_argument("--max-pixels", type=int, help="larger images are reduced; default: the processor's limit")
    parser.add_argument("--dtype", default="bfloat16", help="of the weights: bfloat16, float16 or float32")
    parser.add_argument("--seed", type=int, default=0, help="of the sampled responses")
    parser.add_argument("--forbidden-openings", nargs="*", default=(), help="words that no response may open with")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="what vLLM runs on")
    fields = vars(parser.parse_args(arguments))
    tuples = {name: tuple(fields[name]) for name in ("data", "forbidden_openings")}
    return Evaluation(**{**fields, **tuples})


def main() -> None:
    """Run the evaluation of the command line."""
    evaluation = parse()
    if evaluation.device == "cpu":
        # Before vLLM is imported.
        for name, value in CPU.ray_kwargs.ray_init.runtime_env.env_vars.items():
            os.environ.setdefault(name, value)
    evaluate(evaluation)


if __name__ == "__main__":
    main()
