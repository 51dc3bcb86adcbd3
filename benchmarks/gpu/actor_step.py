"""Speed, MFU and memory of veRL's actor on one GPU: a log-probability pass and an update, without vLLM.

    .venv/bin/python benchmarks/gpu/actor_step.py                  # Qwen2.5-VL 3B and 7B; at most 8 minutes
    .venv/bin/python benchmarks/gpu/actor_step.py --shapes tiny    # the same code in half a minute, on a CPU too

The actor is veRL's worker and FSDP2 engine with the settings of a recipe (`SHAPES`). Weights and tokens are random,
which does not affect time. Each phase processes `sequences` sequences with one image each. Prints one JSON object with
a case per shape and attention; logs go to standard error.

  seconds            median over the repeats, after one that warms up. Weights and optimizer stay on the GPU: the
                     transfers of param_offload and optimizer_offload are not included
  tokens_per_second  tokens of prompts, including visual tokens, and of responses
  mfu                model FLOP/s (`model_flops.py`) over the peak of the device, null if the peak is unknown
  peak_memory_gib    peak memory allocated on the GPU, null on a CPU

The 7B actor, which its recipe shards over eight GPUs, does not fit one GPU of 80 GB: at 16 bytes per parameter (fp32
weight, gradient and two moments) it takes 124 GiB. It is measured with all four in bf16; see `settings` of the case.

Each case has its own process and time limit. Out of memory and an attention that is not installed are results; the exit
status is 1 only if a case fails or times out.
"""

import argparse
import importlib.util
import json
import math
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from benchmarks.gpu.model_flops import PEAK_FLOPS, flops
from benchmarks.gpu.random_model import model_config
from mmupt.compose import load_recipe
from mmupt.tiny import FOLDER
from mmupt.training.recipe_run import count_gpus, use_sdpa

if TYPE_CHECKING:
    from tensordict import TensorDict
    from transformers import Qwen2_5_VLConfig

REPEATS = 3
SECONDS = 470.0
ATTENTIONS = ("sdpa", "flash_attention_2")
FAILURES = ("failed", "timed out")


@dataclass(frozen=True)
class Shape:
    """A model, the recipe that sets it up, and the sequences to process."""

    # Name of a published model with this shape on Hugging Face; None for the tiny model of this repository.
    model: str | None
    recipe: str
    overrides: tuple[str, ...]
    sequences: int
    # Height and width in px.
    image: tuple[int, int]
    # Text tokens of a prompt.
    question: int
    # Tokens of a response.
    response: int


SHAPES = {
    # 1,008 visual tokens, 16 text tokens, 1,024 response tokens.
    "3b": Shape("Qwen/Qwen2.5-VL-3B-Instruct", "mmupt_smoke", (), 16, (784, 1008), 16, 1024),
    "7b": Shape(
        "Qwen/Qwen2.5-VL-7B-Instruct",
        "mmupt_mathvista",
        (
            "hardware=gpu_1x80gb",
            "actor_rollout_ref.actor.fsdp_config.model_dtype=bf16",
            "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=4096",
        ),
        16,
        (784, 1008),
        16,
        1024,
    ),
    "tiny": Shape(None, "mmupt_tiny", (), 8, (140, 196), 8, 32),
}


def config_of(shape: Shape) -> "Qwen2_5_VLConfig":
    """Return the Hugging Face config of a shape."""
    from transformers import Qwen2_5_VLConfig

    return Qwen2_5_VLConfig.from_pretrained(FOLDER) if shape.model is None else model_config(shape.model)


def configure(shape: Shape, attention: str, model: Path, changes: Sequence[str] = ()) -> DictConfig:
    """Compose the recipe of a shape for this machine, with an attention, a model folder and further overrides."""
    overrides = [
        *shape.overrides,
        *changes,
        f"actor_rollout_ref.model.path={model}",
        # veRL requires a tokenizer, which this benchmark never uses.
        f"actor_rollout_ref.model.tokenizer_path={FOLDER}",
    ]
    config, _ = load_recipe(shape.recipe, overrides)
    if config.trainer.device == "cpu" and count_gpus():
        config, _ = load_recipe(shape.recipe, [*overrides, "hardware=gpu_1x80gb"])
    if config.actor_rollout_ref.model.override_config.attn_implementation != attention:
        use_sdpa(config)
    return config


def make_batch(config: "Qwen2_5_VLConfig", shape: Shape) -> "TensorDict":
    """Return random sequences with the fields and layout that veRL's trainer passes to the actor."""
    import torch
    from verl.models.transformers.qwen2_vl import get_rope_index
    from verl.utils.tensordict_utils import get_tensordict

    vision = config.vision_config
    grid = torch.tensor([[1, *(side // vision.patch_size for side in shape.image)]])
    patches = int(grid.prod())
    special = {
        "<|image_pad|>": config.image_token_id,
        "<|video_pad|>": config.video_token_id,
        "<|vision_start|>": config.vision_start_token_id,
    }
    ordinary = torch.tensor(sorted(set(range(config.text_config.vocab_size)) - set(special.values())))
    processor = _Processor(vision.spatial_merge_size, special)
    rows: dict[str, list[Any]] = {}

    def words(length: int) -> torch.Tensor:
        return ordinary[torch.randint(len(ordinary), (length,))]

    for _ in range(shape.sequences):
        image = torch.full((patches // vision.spatial_merge_size**2,), config.image_token_id)
        prompt = torch.cat([torch.tensor([config.vision_start_token_id]), image, words(shape.question - 1)])
        response = words(shape.response)
        input_ids = torch.cat([prompt, response])
        places = get_rope_index(processor, input_ids, image_grid_thw=grid)
        pixels = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
        row = {
            "prompts": prompt,
            "responses": response,
            "input_ids": input_ids,
            "position_ids": torch.cat([torch.arange(len(input_ids))[None], places]),
            "response_mask": torch.ones_like(response),
            "loss_mask": torch.ones_like(response),
            "advantages": torch.randn(1).expand(shape.response).contiguous(),
            "multi_modal_inputs": {"pixel_values": torch.randn(patches, pixels), "image_grid_thw": grid},
        }
        for name, value in row.items():
            rows.setdefault(name, []).append(value)
    features = rows.pop("multi_modal_inputs")
    nested = {name: torch.nested.as_nested_tensor(values, layout=torch.jagged) for name, values in rows.items()}
    return get_tensordict({**nested, "multi_modal_inputs": features})


class _Processor:
    """The parts of a processor that `get_rope_index` reads; also acts as its tokenizer and image processor."""

    def __init__(self, merge_size: int, ids: dict[str, int]) -> None:
        self.merge_size = merge_size
        self.convert_tokens_to_ids = ids.__getitem__
        self.tokenizer = self.image_processor = self


def measure(shape: Shape, attention: str, result_file: Path, changes: Sequence[str] = ()) -> None:
    """Measure one case in this process; write the results so far to `result_file` after every phase.

    Needs the variables of `environment`. Writes the model's config to the folder of `result_file`.
    """
    import torch
    from verl.utils.device import get_device_name, get_torch_device

    config = configure(shape, attention, result_file.parent, changes)
    device = get_torch_device()
    torch.manual_seed(0)
    hf_config = config_of(shape)
    hf_config.save_pretrained(result_file.parent)
    batch = make_batch(hf_config, shape)
    length = int(batch["input_ids"].offsets()[1])
    visual = int((batch["input_ids"].values() == hf_config.image_token_id).sum()) // shape.sequences
    peak_flops = PEAK_FLOPS.get(device.get_device_name())
    per_sequence = flops(hf_config, length, *(side // hf_config.vision_config.patch_size for side in shape.image))
    result: dict[str, Any] = {
        "device": device.get_device_name(),
        "peak_flops": peak_flops,
        "settings": settings(shape, config, changes),
        "workload": {
            "sequences": shape.sequences,
            "visual_tokens": visual,
            "prompt_tokens": length - shape.response,
            "response_tokens": shape.response,
        },
    }

    def peak_memory() -> float | None:
        return round(device.max_memory_allocated() / 2**30, 2) if get_device_name() == "cuda" else None

    def phase(name: str, run: Callable[[], Any], sequence_flops: float) -> None:
        device.reset_peak_memory_stats()
        seconds = median_seconds(run, device.synchronize)
        rate = shape.sequences * sequence_flops / seconds
        result[name] = {
            "seconds": round(seconds, 4),
            "tokens_per_second": round(shape.sequences * length / seconds, 1),
            "model_tflops_per_second": round(rate / 1e12, 6),
            "mfu": None if peak_flops is None else round(rate / peak_flops, 4),
            "peak_memory_gib": peak_memory(),
        }
        result_file.write_text(json.dumps(result))

    try:
        worker = build_worker(config)
        log_prob = LogProb(worker, config, batch)
        phase("log_prob", log_prob, per_sequence.forward)
        phase("update", Update(worker, config, log_prob.with_log_probs()), per_sequence.update)
        result["status"] = "ok"
    except torch.OutOfMemoryError as error:
        result |= {"status": "out of memory", "cause": str(error), "peak_memory_gib": peak_memory()}
    result_file.write_text(json.dumps(result))


def environment(config: DictConfig) -> dict[str, str]:
    """Return the environment variables of a case's process: those of the recipe's runs, for a world of one rank."""
    # Port 0 picks a free port.
    world = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    recipe = config.ray_kwargs.ray_init.runtime_env.env_vars
    return {**os.environ, **world, **{name: str(value) for name, value in recipe.items()}}


def median_seconds(run: Callable[[], Any], synchronize: Callable[[], Any]) -> float:
    """Return the median wall-clock time of `REPEATS` runs, after one run that warms up."""
    seconds = []
    for _ in range(1 + REPEATS):
        synchronize()
        start = time.perf_counter()
        run()
        synchronize()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def settings(shape: Shape, config: DictConfig, changes: Sequence[str]) -> dict[str, Any]:
    """Return the settings that decide speed and memory."""
    actor, model = config.actor_rollout_ref.actor, config.actor_rollout_ref.model
    return {
        "recipe": shape.recipe,
        "overrides": [*shape.overrides, *changes],
        "strategy": actor.strategy,
        "model_dtype": actor.fsdp_config.model_dtype,
        "compute_dtype": actor.fsdp_config.mixed_precision.param_dtype,
        "optimizer": actor.optim.optimizer,
        "use_remove_padding": model.use_remove_padding,
        "use_fused_kernels": model.use_fused_kernels,
        "enable_gradient_checkpointing": model.enable_gradient_checkpointing,
        "ppo_max_token_len_per_gpu": actor.ppo_max_token_len_per_gpu,
    }


def build_worker(config: DictConfig) -> Any:
    """Return veRL's actor worker with random weights, its model on the device."""
    import torch
    from transformers import AutoModelForImageTextToText
    from verl.utils.device import get_device_name, set_expandable_segments
    from verl.workers.engine_workers import ActorRolloutRefWorker

    def random_weights(config: Any, torch_dtype: torch.dtype, **_: Any) -> torch.nn.Module:
        # Drawing on the device takes a second; veRL expects loaded weights on the CPU.
        with torch.device(get_device_name()):
            model = AutoModelForImageTextToText.from_config(config, dtype=torch_dtype)
        return model.to("cpu")

    AutoModelForImageTextToText.from_pretrained = random_weights
    # veRL sets this after every weight transfer.
    set_expandable_segments(True)
    worker = ActorRolloutRefWorker(config.actor_rollout_ref, "actor")
    worker.init_model()
    worker.to("device")
    return worker


class LogProb:
    """A pass for old log-probabilities: `_compute_old_log_prob` of veRL's trainer, without the transfer queue."""

    def __init__(self, worker: Any, config: DictConfig, batch: "TensorDict") -> None:
        self.worker, self.batch = worker, batch
        self.output: Any = None
        self.extra_info = {
            "calculate_entropy": True,
            "compute_loss": False,
            "temperature": config.actor_rollout_ref.rollout.temperature,
            "disable_auto_offload": True,
        }

    def __call__(self) -> None:
        self.output = self.worker.compute_log_prob(_with(self.batch, self.extra_info))

    def with_log_probs(self) -> "TensorDict":
        """Return the batch with the last pass's output as `old_log_probs` and `ref_log_prob`."""
        from verl.workers.utils.padding import response_from_nested

        batch = self.batch.copy()
        log_probs = response_from_nested(self.output["log_probs"], batch["response_mask"])
        batch["old_log_probs"] = batch["ref_log_prob"] = log_probs
        return batch


class Update:
    """An update on the whole batch: `_update_actor` of veRL's trainer, without the transfer queue."""

    def __init__(self, worker: Any, config: DictConfig, batch: "TensorDict") -> None:
        actor = config.actor_rollout_ref.actor
        self.worker, self.batch = worker, batch
        self.extra_info = {
            "calculate_entropy": actor.calculate_entropy or actor.entropy_coeff != 0.0,
            "distillation_use_topk": False,
            "distillation_only": False,
            "global_batch_size": len(batch),
            "mini_batch_size": len(batch),
            "epochs": 1,
            "seed": actor.data_loader_seed,
            "dataloader_kwargs": {"shuffle": actor.shuffle},
            "temperature": config.actor_rollout_ref.rollout.temperature,
            "disable_auto_offload": True,
        }

    def __call__(self) -> None:
        metrics = self.worker.update_actor(_with(self.batch, self.extra_info))["metrics"]
        if not all(map(math.isfinite, metrics["grad_norm"])):
            raise RuntimeError(f"the gradient norm is {metrics['grad_norm']}, so veRL skipped the optimizer step")


def _with(batch: "TensorDict", extra_info: dict[str, Any]) -> "TensorDict":
    from verl.utils.tensordict_utils import assign_non_tensor

    # veRL takes keys out of what it is given.
    data = batch.copy()
    assign_non_tensor(data, **extra_info)
    return data


def run_case(name: str, attention: str, limit: float, changes: Sequence[str]) -> dict[str, Any]:
    """Measure one case in a new process, for at most `limit` seconds; return its entry in the JSON."""
    case: dict[str, Any] = {"shape": name, "attention": attention}
    with tempfile.TemporaryDirectory() as folder:
        result_file, log_file = Path(folder) / "result.json", Path(folder) / "log"
        command = [sys.executable, __file__, "--shapes", name, "--attentions", attention, "--result", str(result_file)]
        command += ["--overrides", *changes]
        variables = environment(configure(SHAPES[name], attention, Path(folder), changes))
        with log_file.open("w") as log:
            # In a new session, so that processes started by torch's compiler end with the case.
            process = subprocess.Popen(command, stdout=log, stderr=log, env=variables, start_new_session=True)
            status: int | None = None
            try:
                status = process.wait(limit)
            except subprocess.TimeoutExpired:
                case |= {"status": "timed out", "cause": f"not finished after {limit:.0f} s"}
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        log_text = log_file.read_text()
        if result_file.is_file():
            case = json.loads(result_file.read_text()) | case
        if status:
            case |= {"status": "failed", "cause": cause_of(status, log_text)}
        if case["status"] in FAILURES:
            print(log_text, file=sys.stderr)
        return case


def cause_of(status: int, log: str) -> str:
    """Say why a process ended with `status`: the signal that killed it, or the last exception in its log."""
    if status < 0:
        name = signal.Signals(-status).name
        return f"killed by {name}" + (": most likely out of main memory" if name == "SIGKILL" else "")
    # torch and Ray prefix lines with the name of the process, Ray in colour.
    log = re.sub(r"\x1b\[[\d;]*m", "", log)
    exceptions = re.findall(
        r"^(?:\[rank\d+\]: |\(\w+ pid=\d+\) )?([\w.]*(?:Error|Exception|Interrupt|Exit)\b.*)", log, re.MULTILINE
    )
    return exceptions[-1] if exceptions else f"exit status {status}"


def main() -> None:
    """Print all cases as JSON; exit with 1 if one failed or timed out."""
    parser = argparse.ArgumentParser(description="Speed, MFU and memory of veRL's actor on one GPU.")
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=["3b", "7b"], help="(3b 7b)")
    parser.add_argument("--attentions", nargs="+", choices=ATTENTIONS, default=ATTENTIONS, help="(all)")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="limit for all cases together (%(default)s)")
    parser.add_argument("--overrides", nargs="*", default=[], metavar="KEY=VALUE", help="overrides of the recipes")
    parser.add_argument("--result", type=Path, help="measure the first shape and attention here, into this JSON file")
    arguments = parser.parse_args()
    if arguments.result:
        measure(SHAPES[arguments.shapes[0]], arguments.attentions[0], arguments.result, arguments.overrides)
        return
    if arguments.shapes != ["tiny"] and not count_gpus():
        parser.error("found no GPU; use --shapes tiny to run on a CPU")
    end = time.monotonic() + arguments.seconds
    missing = set() if importlib.util.find_spec("flash_attn") else {"flash_attention_2"}
    all_cases = [(shape, attention) for shape in arguments.shapes for attention in arguments.attentions]
    cases: list[dict[str, Any]] = [
        {"shape": shape, "attention": attention, "status": "not installed"}
        for shape, attention in all_cases
        if attention in missing
    ]
    to_run = [case for case in all_cases if case[1] not in missing]
    for position, (shape, attention) in enumerate(to_run):
        limit = (end - time.monotonic()) / (len(to_run) - position)
        cases.append(run_case(shape, attention, limit, arguments.overrides))
        print(f"{shape} {attention}: {cases[-1]['status']}", file=sys.stderr)
    versions = {name: version(name) for name in ("torch", "transformers", "verl")}
    # If installed, veRL computes log-probabilities with flash-attn under every attention.
    versions["flash_attn"] = "none" if missing else version("flash_attn")
    print(json.dumps({"versions": versions, "repeats": REPEATS, "cases": cases}, indent=2))
    if any(case["status"] in FAILURES for case in cases):
        sys.exit(1)


if __name__ == "__main__":
    main()
