"""CPU time and transfer-queue bytes per group rollout, against plain veRL with its naive reward manager.

    .venv/bin/python benchmarks/rollout_cost.py [--responses 8] [--side 1024] [--repeats 5]

Both run their agent loop worker in this process, on the same prompts with one image each, as the data set yields it and
Ray delivers it. A stand-in for the model replies at once. Messages to the model, to a reward worker and to the transfer
queue are encoded as Ray and the queue encode them, and dropped; receiving them is not measured. What remains is the
work on prompts, images, features and rewards, and their encoding. Prints medians over the repeats, in which the two
alternate.
"""

import argparse
import asyncio
import json
import os
import pickle
import statistics
import tempfile
import time
from io import BytesIO
from pathlib import Path
from typing import Any

from mmupt.compose import load_recipe

# The environment of a run must be set before torch is imported. Variables that are already set keep their values.
os.environ |= {
    name: os.environ.get(name, str(value))
    for name, value in load_recipe("mmupt_tiny")[0].ray_kwargs.ray_init.runtime_env.env_vars.items()
}

from omegaconf import DictConfig
from PIL import Image
from ray import cloudpickle
from transfer_queue.utils.serial_utils import encode
from transformers import AutoTokenizer
from verl.experimental.reward_loop.reward_manager.naive import NaiveRewardManager
from verl.trainer.ppo.v1 import agent_loop_tq
from verl.workers.rollout.replica import TokenOutput

from benchmarks.stand_ins import model_for_large_images
from verl_ext.datasets.encoded_image import EncodedImage
from verl_ext.rollout.agent_loop import GroupAgentLoopWorker, _AgentLoopWorkerTQ
from verl_ext.rollout.reward_manager import GroupRewardManager
from verl_ext.rollout.shared_prompt import SentImages

RESPONSE_TOKENS = 256


def send(message: Any) -> None:
    """Encode a message as Ray does, and drop it."""
    cloudpickle.dumps(message, protocol=5, buffer_callback=lambda buffer: None)


def send_images(images: SentImages) -> None:
    """Replace `ray.put`: requests then carry 28 bytes, the size of a reference."""
    send(images.content)
    images.content = bytes(28)


class Server:
    """Stand-in for vLLM: returns a fixed response at once."""

    async def generate(self, **request: Any) -> TokenOutput:
        send(request)
        tokens = [30] * RESPONSE_TOKENS
        return TokenOutput(token_ids=tokens, log_probs=[-1.0] * len(tokens), stop_reason="completed", extra_fields={})


class RewardWorker:
    """Stand-in for the Ray actor around a reward manager."""

    def __init__(self, manager: Any) -> None:
        self.compute_score, self._manager = self, manager

    async def remote(self, data: Any) -> Any:
        send(data)
        return await self._manager.run_single(data)


def photograph(side: int, ours: bool) -> dict[str, Any]:
    """Return a square image as a worker receives it in a message: ours as a JPEG file, veRL's as pixels."""
    file = BytesIO()
    Image.effect_noise((side, side), 50).convert("RGB").save(file, format="JPEG")
    image = EncodedImage(file.getvalue(), (side, side))
    return pickle.loads(pickle.dumps({"type": "image", "image": image if ours else image.decode()}))


def configure(model: Path, agent_loop: str, n: int) -> DictConfig:
    """Compose the tiny recipe for large images."""
    rollout = "actor_rollout_ref.rollout"
    overrides = [
        f"{rollout}.n={n}",
        f"{rollout}.agent.default_agent_loop={agent_loop}",
        f"{rollout}.prompt_length=4096",
    ]
    return load_recipe("mmupt_tiny", [*overrides, f"actor_rollout_ref.model.path={model}"])[0]


class MeasuredWorker:
    """A worker, ours or veRL's, and the bytes of the last group that it put into the transfer queue."""

    def __init__(self, ours: bool, model: Path, n: int) -> None:
        self.agent_loop = "shared_prompt_agent" if ours else "single_turn_agent"
        config = configure(model, self.agent_loop, n)
        tokenizer = AutoTokenizer.from_pretrained(model)
        manager = (
            GroupRewardManager(config, tokenizer, None)
            if ours
            else NaiveRewardManager(config, tokenizer, lambda **_: 0.0)
        )
        worker_class = GroupAgentLoopWorker if ours else _AgentLoopWorkerTQ
        self.worker = worker_class(config, Server(), None, [RewardWorker(manager)])
        self.bytes = 0

    async def roll_out(self, image: dict[str, Any], uid: str) -> tuple[float, int]:
        """Roll out one prompt; return the CPU seconds of this process and the bytes put."""

        async def put(fields: dict[str, Any] | None = None, **_: Any) -> None:
            self.bytes += sum(memoryview(frame).nbytes for frame in encode(fields))

        async def put_batch(keys: list[str], fields: Any, tags: list[dict], partition_id: str) -> None:
            columns = {name: list(fields[name]) for name in fields.keys()}
            self.bytes += sum(memoryview(frame).nbytes for frame in encode(columns))

        agent_loop_tq.tq.async_kv_put, agent_loop_tq.tq.async_kv_batch_put = put, put_batch
        content = [image, {"type": "text", "text": "what is the sum of the three bars ?"}]
        prompt = {
            "uid": uid,
            "id": uid,
            "raw_prompt": [{"role": "user", "content": content}],
            "reward_model": {"ground_truth": None},
            "data_source": "figures",
            "extra_info": {},
            "global_steps": 1,
            "agent_name": self.agent_loop,
        }
        trajectory = {"step": 1, "sample_index": 0, "rollout_n": 0, "validate": False}
        self.bytes, start = 0, time.process_time()
        await self.worker._run_prompt(prompt, {}, trajectory)
        return time.process_time() - start, self.bytes


async def compare(n: int, side: int, repeats: int) -> dict[str, Any]:
    """Measure both workers in alternation; return medians and ratios."""
    agent_loop_tq.tq.init = lambda: None
    SentImages.send = send_images  # type: ignore[method-assign, assignment]
    with tempfile.TemporaryDirectory() as folder:
        model = model_for_large_images(Path(folder) / "model")
        workers = {"plain veRL": MeasuredWorker(False, model, n), "ours": MeasuredWorker(True, model, n)}
        images = {name: photograph(side, name == "ours") for name in workers}
        results: dict[str, list[tuple[float, int]]] = {name: [] for name in workers}
        for repeat in range(repeats + 1):
            for name, worker in workers.items():
                result = await worker.roll_out(images[name], f"{name}{repeat}")
                # The first group warms up.
                if repeat:
                    results[name].append(result)
    table = {
        name: {
            "CPU ms per response": round(1000 * statistics.median(seconds for seconds, _ in rows) / n, 2),
            "MB put per group": round(statistics.median(size for _, size in rows) / 1e6, 1),
        }
        for name, rows in results.items()
    }
    ratios = {key: round(table["plain veRL"][key] / table["ours"][key], 1) for key in table["ours"]}
    return {"responses": n, "image": f"{side} x {side}", **table, "plain veRL / ours": ratios}


def main() -> None:
    """Print the comparison as JSON."""
    parser = argparse.ArgumentParser(description="Cost of a group rollout, against plain veRL.")
    parser.add_argument("--responses", type=int, default=8, help="responses per prompt, n (%(default)s)")
    parser.add_argument("--side", type=int, default=1024, help="side of the square image in px (%(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="groups to measure with each worker (%(default)s)")
    arguments = parser.parse_args()
    print(json.dumps(asyncio.run(compare(arguments.responses, arguments.side, arguments.repeats)), indent=2))


if __name__ == "__main__":
    main()
