"""Compute log-probabilities of model families with veRL's actor and with vLLM, in one process without Ray and trainer.

    python tests/families/engines.py FOLDER qwen3_vl glm4v ...

Prompts have one image, two images and none. The actor computes log-probabilities of their responses before and after
an update of all weights and of adapters, and after loading its checkpoint into a new actor. vLLM computes them with the
exported policy, and with weights and adapters that it receives the way veRL sends them. FOLDER/FAMILY.json has the
`Result` of each family, or its traceback.
"""

import asyncio
import gc
import json
import os
import sys
import traceback
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

# A world of one rank; vLLM's engine runs in the same process.
WORLD = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
UPDATE = ("actor_rollout_ref.actor.optim.lr=1e-2", "actor_rollout_ref.actor.use_torch_compile=False")
ADAPTERS = (
    "actor_rollout_ref.model.lora_rank=8",
    "actor_rollout_ref.model.lora_alpha=16",
)


@dataclass
class Result:
    """Log-probabilities of the response tokens of each row, and the names of weights.

    Attributes:
        actor: the actor's, by state: "base", "updated", "updated again", "adapted".
        vllm: vLLM's, by state: "exported" (the updated policy), "base", "stale" (updated without clearing caches),
            "updated", "adapted".
        resumed: a second actor's, "updated" from the first one's checkpoint and "updated again".
        text_only: the actor's in state "base", for a batch of the rows without images.
        with_image: whether a row has an image.
        weights: names of the weights sent to vLLM.
        adapters: names of the adapters sent to vLLM.
        exported: differences of the exported policy's weights from the actor's.
        failure: traceback, or None.
    """

    actor: dict[str, list[list[float]]] = field(default_factory=dict)
    vllm: dict[str, list[list[float]]] = field(default_factory=dict)
    resumed: dict[str, list[list[float]]] = field(default_factory=dict)
    text_only: list[list[float]] = field(default_factory=list)
    with_image: list[bool] = field(default_factory=list)
    weights: list[str] = field(default_factory=list)
    adapters: list[str] = field(default_factory=list)
    exported: list[str] = field(default_factory=list)
    failure: str | None = None


class Prompts:
    """Prompts with responses of a stand-in for vLLM, as rows for the actor and as requests to vLLM."""

    def __init__(self, family: Any, model: Path) -> None:
        import pytest
        from rollouts import Server, message, rollout
        from tiny_families import noise
        from verl.utils.tokenizer import hf_tokenizer

        from verl_ext.rollout.agent_loop import GroupAgentLoopWorker

        random, tokenizer = Random(0), hf_tokenizer(str(model))
        question = "what is the sum of the three bars ?"
        # Features are cached by prompt id, so the families of a process need different ids.
        name = family.name.replace("_", "-")
        prompts = {f"{name}-text": message(question)}
        if family.has_images:
            prompts |= {
                f"{name}-one": message(question, noise(random)),
                f"{name}-two": message(question, noise(random), noise(random, 150, 90)),
            }
        requests: list[dict[str, Any]] = []
        # A taught answer, which has probable tokens, followed by random tokens.
        answers = {length: tokenizer.encode(f"so \\boxed{{{length - 2}}}") for length in (5, 6, 7)}
        responses = {
            length: [*answer, *(random.randrange(8, 150) for _ in range(length - len(answer)))]
            for length, answer in answers.items()
        }
        server = Server(requests.append, lambda number: responses[4 + number])
        with pytest.MonkeyPatch.context() as monkeypatch:
            rows, _ = rollout(
                GroupAgentLoopWorker,
                "shared_prompt_agent",
                monkeypatch,
                server,
                prompts,
                [f"actor_rollout_ref.model.path={model}"],
            )
            self.rows = [
                {**row, "multi_modal_inputs": dict(row["multi_modal_inputs"].items())} for row in rows.values()
            ]
        self.requests = requests

    def batch(self, with_images: bool = True) -> Any:
        """The rows with the fields and layout that veRL's trainer passes to the actor."""
        import torch
        from verl.utils.tensordict_utils import get_tensordict

        rows = [row for row in self.rows if with_images or "pixel_values" not in row["multi_modal_inputs"]]
        names = ("prompts", "responses", "input_ids", "position_ids", "response_mask", "loss_mask")
        nested = {
            name: torch.nested.as_nested_tensor([row[name] for row in rows], layout=torch.jagged) for name in names
        }
        generator = torch.Generator().manual_seed(0)
        advantages = [torch.randn(1, generator=generator).expand(len(row["responses"])).contiguous() for row in rows]
        nested["advantages"] = torch.nested.as_nested_tensor(advantages, layout=torch.jagged)
        return get_tensordict({**nested, "multi_modal_inputs": [row["multi_modal_inputs"] for row in rows]})


class Actor:
    """veRL's actor worker."""

    def __init__(self, model: Path, *overrides: str) -> None:
        from verl.workers.engine_workers import ActorRolloutRefWorker

        from mmupt.compose import load_recipe

        self.config, _ = load_recipe("mmupt_tiny", [f"actor_rollout_ref.model.path={model}", *UPDATE, *overrides])
        self.worker = ActorRolloutRefWorker(self.config.actor_rollout_ref, "actor")
        self.worker.init_model()
        self.engine = self.worker.actor.engine

    def log_probs(self, batch: Any) -> list[list[float]]:
        return [row.tolist() for row in self._log_probs(batch)]

    def _log_probs(self, batch: Any) -> Any:
        from verl.workers.utils.padding import response_from_nested

        extra = {"calculate_entropy": False, "compute_loss": False, "temperature": 1.0}
        output = self.worker.compute_log_prob(_with(batch, extra))
        return response_from_nested(output["log_probs"], batch["response_mask"]).unbind()

    def update(self, batch: Any) -> None:
        """Update on the whole batch, like `_update_actor` of veRL's trainer without the transfer queue."""
        import torch

        batch = batch.copy()
        nested = torch.nested.as_nested_tensor(list(self._log_probs(batch)), layout=torch.jagged)
        batch["old_log_probs"] = batch["ref_log_prob"] = nested
        actor = self.config.actor_rollout_ref.actor
        extra = {
            "calculate_entropy": False,
            "distillation_use_topk": False,
            "distillation_only": False,
            "global_batch_size": len(batch),
            "mini_batch_size": len(batch),
            "epochs": 1,
            "seed": actor.data_loader_seed,
            "dataloader_kwargs": {"shuffle": actor.shuffle},
            "temperature": 1.0,
        }
        self.worker.update_actor(_with(batch, extra))

    def weights(self) -> tuple[list[tuple[str, Any]], dict[str, Any] | None]:
        """The names and tensors that veRL sends to vLLM, and the PEFT config if they are adapters."""
        weights, peft_config = self.engine.get_per_tensor_param(base_sync_done=True)
        return [(name, tensor.detach().clone()) for name, tensor in weights], peft_config


def _with(batch: Any, extra_info: dict[str, Any]) -> Any:
    from verl.utils.tensordict_utils import assign_non_tensor

    # veRL removes keys from its argument.
    data = batch.copy()
    assign_non_tensor(data, **extra_info)
    return data


class Engine:
    """vLLM with the options of veRL's server, in this process."""

    def __init__(self, model: Path, **options: Any) -> None:
        from verl.utils.tokenizer import hf_processor
        from vllm import LLM

        self.processor = hf_processor(str(model))
        self.llm = LLM(
            str(model),
            dtype="float32",
            max_model_len=256,
            max_num_seqs=16,
            enforce_eager=True,
            distributed_executor_backend="uni",
            skip_mm_profiling=True,
            enable_prefix_caching=True,
            worker_extension_cls="verl.workers.rollout.vllm_rollout.utils.vLLMColocateWorkerExtension",
            **options,
        )

    def log_probs(self, prompts: Prompts, adapted: bool = False) -> list[list[float]]:
        """The log-probabilities of all responses, with a request per token: prompt and earlier tokens as its prompt."""
        from verl.workers.rollout.vllm_rollout import vllm_async_server
        from verl.workers.rollout.vllm_rollout.utils import VLLM_LORA_INT_ID, VLLM_LORA_NAME, VLLM_LORA_PATH
        from vllm import SamplingParams
        from vllm.lora.request import LoRARequest

        inputs, parameters, tokens_before = [], [], []
        for row, request in zip(prompts.rows, prompts.requests, strict=True):
            # Like `vLLMHttpServer.generate`.
            prompt_ids = vllm_async_server.qwen2_5_vl_dedup_image_tokens(request["prompt_ids"], self.processor)
            images = request.get("image_data")
            media = {} if images is None else {"multi_modal_data": {"image": images}}
            response = row["responses"].tolist()
            for length, token in enumerate(response):
                inputs.append({"prompt_token_ids": [*prompt_ids, *response[:length]], **media})
                # Only this token can be sampled; its log-probability is still relative to all tokens.
                parameters.append(SamplingParams(max_tokens=1, logprobs=0, allowed_token_ids=[token]))
                tokens_before.append([*row["prompts"].tolist(), *response[:length]])
        lora = LoRARequest(VLLM_LORA_NAME, VLLM_LORA_INT_ID, VLLM_LORA_PATH) if adapted else None
        outputs = self.llm.generate(inputs, parameters, lora_request=lora, use_tqdm=False)
        for output, before in zip(outputs, tokens_before, strict=True):
            assert output.prompt_token_ids == before, "vLLM has other tokens than the actor"
        values = iter([output.outputs[0].logprobs[0][output.outputs[0].token_ids[0]].logprob for output in outputs])
        return [[next(values) for _ in row["responses"]] for row in prompts.rows]

    def load(self, weights: list[tuple[str, Any]], peft_config: dict[str, Any] | None = None) -> None:
        """Load weights or adapters like veRL's receiver."""
        self.llm.collective_rpc("_update_weights", args=(weights, peft_config, True))
        if peft_config is None:
            self.llm.collective_rpc(_process_weights)

    def clear_caches(self) -> None:
        """Clear the caches with the code that veRL's server runs after an update."""
        from verl.workers.rollout.vllm_rollout.vllm_async_server import vLLMHttpServer

        engine = self.llm.llm_engine

        class Asynchronous:
            def __getattr__(self, name: str) -> Any:
                async def call(**arguments: Any) -> None:
                    getattr(engine, name)(**arguments)

                return call

        asyncio.run(vLLMHttpServer.clear_kv_cache(SimpleNamespace(node_rank=0, engine=Asynchronous())))

    def close(self) -> None:
        from vllm.distributed import cleanup_dist_env_and_memory

        del self.llm
        gc.collect()
        cleanup_dist_env_and_memory()


def _process_weights(worker: Any) -> None:
    from vllm.model_executor.model_loader.utils import process_weights_after_loading

    for model, config in worker._iter_all_models_with_config():
        process_weights_after_loading(model, config, worker.device)


def differences(actor: Actor, exported: Path) -> list[str]:
    """Describe the weights that the exported policy lacks, has in addition, or has with other values than the actor."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    has_images = (exported / "preprocessor_config.json").exists() or (exported / "processor_config.json").exists()
    model_class = AutoModelForImageTextToText if has_images else AutoModelForCausalLM
    model, info = model_class.from_pretrained(exported, output_loading_info=True)
    weights = model.state_dict()
    problems = [
        f"{kind}: {name}" for kind in ("missing_keys", "unexpected_keys", "mismatched_keys") for name in info[kind]
    ]
    expected = {
        name: getattr(value, "full_tensor", lambda v=value: v)()
        for name, value in actor.engine.module.state_dict().items()
    }
    problems += [f"not the same name: {name}" for name in weights.keys() ^ expected.keys()]
    problems += [
        f"another value: {name}"
        for name in weights.keys() & expected.keys()
        if not torch.equal(weights[name], expected[name].to(weights[name].dtype))
    ]
    return problems


def run(family: Any, model: Path, folder: Path, result: Result) -> None:
    """Fill the result of a family from its base model; writes files to `folder`."""
    from mmupt.runtime.export import merge

    prompts = Prompts(family, model)
    batch = prompts.batch()
    result.with_image = ["pixel_values" in row["multi_modal_inputs"] for row in prompts.rows]

    actor = Actor(model)
    base, _ = actor.weights()
    result.weights = [name for name, _ in base]
    result.actor["base"] = actor.log_probs(batch)
    result.text_only = actor.log_probs(prompts.batch(with_images=False))
    actor.update(batch)
    result.actor["updated"] = actor.log_probs(batch)
    actor.worker.save_checkpoint(str(folder / "checkpoint"))
    updated, _ = actor.weights()
    exported = merge(folder / "checkpoint", folder / "exported", "updated")
    result.exported = differences(actor, exported)

    resumed = Actor(model)
    resumed.worker.load_checkpoint(str(folder / "checkpoint"))
    result.resumed["updated"] = resumed.log_probs(batch)
    for continued, states in ((actor, result.actor), (resumed, result.resumed)):
        continued.update(batch)
        states["updated again"] = continued.log_probs(batch)

    adapted = Actor(model, f"model={family.option}", *ADAPTERS)
    # Two updates: the B matrices start at zero, so the first one leaves the A matrices unchanged.
    for _ in range(2):
        adapted.update(batch)
    result.actor["adapted"] = adapted.log_probs(batch)
    adapters = adapted.weights()
    result.adapters = [name for name, _ in adapters[0]]

    engine = Engine(exported)
    result.vllm["exported"] = engine.log_probs(prompts)
    engine.load(base)
    engine.clear_caches()
    result.vllm["base"] = engine.log_probs(prompts)
    engine.load(updated)
    result.vllm["stale"] = engine.log_probs(prompts)
    engine.clear_caches()
    result.vllm["updated"] = engine.log_probs(prompts)
    engine.close()

    served = adapted.config.actor_rollout_ref.rollout.engine_kwargs.vllm.get("lora_target_modules")
    modules = None if served is None else [*served]
    engine = Engine(model, enable_lora=True, max_loras=1, max_lora_rank=8, lora_target_modules=modules)
    engine.load(*adapters)
    result.vllm["adapted"] = engine.log_probs(prompts, adapted=True)
    engine.close()


def main() -> None:
    folder, names = Path(sys.argv[1]), sys.argv[2:]
    from tiny_families import FAMILIES

    # All models are built before the first actor, because veRL then patches classes that families share.
    models = {name: FAMILIES[name].build(folder / name / "model") for name in names}
    for name, model in models.items():
        result = Result()
        try:
            run(FAMILIES[name], model, folder / name, result)
        except Exception:
            result.failure = traceback.format_exc()
        (folder / f"{name}.json").write_text(json.dumps(asdict(result)))


def environment() -> dict[str, str]:
    """The environment variables for this program: those of the tiny recipe's runs, for a world of one rank."""
    from mmupt.compose import load_recipe

    config, _ = load_recipe("mmupt_tiny", [])
    variables = config.ray_kwargs.ray_init.runtime_env.env_vars
    # Folders that pytest has added for test helpers.
    path = {"PYTHONPATH": os.pathsep.join(sys.path)}
    return {**os.environ, **WORLD, **path, **{name: str(value) for name, value in variables.items()}}


if __name__ == "__main__":
    main()
