"""Stand-ins for vLLM and for the actor's forward pass, with which a step of any size runs on two cores.

`with_stand_ins` is Ray's `worker_process_setup_hook`. In each process, it replaces parts of modules as they are
imported: veRL's vLLM server by `StandInServer`, the weight transfer by nothing, and the forward pass of an FSDP engine,
after the engine has prepared all its inputs, by made-up log-probabilities of the right shape. It also counts the bytes
that the process sends through the transfer queue, in a file per process. Everything else is the real run.

Responses resemble a 7B model's: lognormal lengths, and the answers of `vote_groups.py`.
"""

import asyncio
import json
import math
import os
import random
import re
import shutil
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import wrapt

from verl_ext.process_memory import collect_garbage_rarely

# Environment variable: folder with a file per process, named by its id, with the bytes it has sent (int64).
BYTES_FOLDER = "STAND_IN_BYTES_FOLDER"
# Environment variable: seconds per token of the stand-in for vLLM.
SECONDS_PER_TOKEN = "STAND_IN_SECONDS_PER_TOKEN"

# Response length in tokens: the median, and the standard deviation of its logarithm.
MEDIAN_TOKENS, SPREAD = 300, 0.6
QUESTION = re.compile(r"Question (\d+):")


def question(number: int) -> str:
    """The question text, whose number tells `StandInServer` which group of answers to give."""
    return f"<image>Question {number}: what is the length of the longest side of the figure?"


def draw_group(number: int, responses: int) -> Any:
    """Draw the answers to a question: an `AnswerGroup`, the same in every process."""
    from benchmarks.vote_groups import draw_groups

    return draw_groups(1, responses, seed=number)[0]


def draw_length(rng: random.Random, limit: int) -> int:
    """Draw the length of a response in tokens."""
    return min(limit, max(16, round(rng.lognormvariate(math.log(MEDIAN_TOKENS), SPREAD))))


def model_for_large_images(folder: Path) -> Path:
    """Copy the tiny model, with the pixel limits of Qwen2.5-VL's processor; returns the folder."""
    from mmupt.tiny import FOLDER

    shutil.copytree(FOLDER, folder)
    file = folder / "processor_config.json"
    config = json.loads(file.read_text())
    config["image_processor"]["size"] = {"shortest_edge": 3136, "longest_edge": 12_845_056}
    file.write_text(json.dumps(config))
    return folder


def model_of_bytes(folder: Path) -> Path:
    """Like `model_for_large_images`, with a tokenizer that can encode any text: a token per byte."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from mmupt.tiny import vocabulary

    model_for_large_images(folder)
    signs = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*vocabulary.SPECIAL_TOKENS, *signs]
    tokenizer = Tokenizer(models.BPE({token: index for index, token in enumerate(tokens)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token=vocabulary.UNKNOWN,
        eos_token=vocabulary.TURN_END,
        pad_token=vocabulary.END_OF_TEXT,
        additional_special_tokens=[
            vocabulary.TURN_START,
            vocabulary.VISION_START,
            vocabulary.VISION_END,
            vocabulary.IMAGE_PAD,
            vocabulary.VIDEO_PAD,
        ],
        chat_template=vocabulary.CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    ).save_pretrained(folder)
    return folder


class StandInServer:
    """Replacement of veRL's `vLLMHttpServer` that returns the tokens of made-up responses; runs as a Ray actor."""

    def __init__(self, model: str, responses: int, limit: int) -> None:
        from transformers import AutoTokenizer

        self._tokenizer: Any = AutoTokenizer.from_pretrained(model)
        self._responses = responses
        self._limit = limit
        self._seconds_per_token = float(os.environ[SECONDS_PER_TOKEN])
        self._random = random.Random(os.getpid())
        self._answers: dict[int, list[list[int]]] = {}
        self._filler = self._tokenizer.encode("a")[0]
        self.global_steps = 0

    async def generate(
        self, prompt_ids: list[int], sampling_params: dict[str, Any], request_id: str, **media: Any
    ) -> Any:
        """Return a response to a prompt, after the time that its tokens take."""
        from verl.workers.rollout.replica import TokenOutput

        number = self._number(prompt_ids)
        if number not in self._answers:
            texts = [
                "no answer" if answer is None else f"\\boxed{{{answer}}}"
                for answer in draw_group(number, self._responses).answers
            ]
            end_token = self._tokenizer.eos_token_id
            self._answers[number] = [[*self._tokenizer.encode(text), end_token] for text in texts]
        answer = self._random.choice(self._answers[number])
        length = max(len(answer), draw_length(self._random, self._limit))
        tokens = [self._filler] * (length - len(answer)) + answer
        await asyncio.sleep(self._seconds_per_token * length)
        fields = {"global_steps": self.global_steps}
        return TokenOutput(token_ids=tokens, log_probs=[-1.0] * length, stop_reason="completed", extra_fields=fields)

    async def generate_group(
        self, request_ids: list[str], *, sampling_params: dict[str, Any], **request: Any
    ) -> list[Any]:
        """Return the responses of a group, like `verl_ext.rollout.group_server.GroupServer`."""
        requests = [self.generate(request_id=name, sampling_params=sampling_params, **request) for name in request_ids]
        return list(await asyncio.gather(*requests))

    def _number(self, prompt_ids: list[int]) -> int:
        match = QUESTION.search(self._tokenizer.decode(prompt_ids[-200:]))
        assert match is not None
        return int(match[1])

    async def ready(self) -> None:
        """Return once the actor has started."""

    async def wake_up(self) -> None:
        """Do nothing: the stand-in never sleeps."""

    async def sleep(self) -> None:
        """Do nothing: there is no memory to free."""

    async def clear_kv_cache(self) -> None:
        """Do nothing: there is no cache."""


def _stand_in_replica(module: Any) -> type:
    import ray

    class StandInReplica(module.RolloutReplica):
        async def launch_servers(self) -> None:
            server = (
                ray.remote(StandInServer)
                .options(name=f"vllm_server_{self.replica_rank}_0", max_concurrency=self.max_concurrency)
                .remote(self.model_config.path, self.config.n, self.config.response_length)
            )
            await server.ready.remote()
            self.servers = [server]
            self._server_handle, self._server_address = server, f"stand-in {self.replica_rank}"

    return StandInReplica


def _replace_server(module: Any) -> None:
    module.RolloutReplicaRegistry.register("vllm", lambda: _stand_in_replica(module))


def _replace_weight_transfer(module: Any) -> None:
    class StandInRollout(module.BaseRollout):
        async def resume(self, tags: list[str]) -> None:
            return None

        async def release(self) -> None:
            return None

        async def update_weights(self, weights: Any, **_: Any) -> None:
            for _weight in weights:
                pass

    globals()["StandInRollout"] = StandInRollout
    module._ROLLOUT_REGISTRY["vllm", "async"] = f"{__name__}.StandInRollout"


def _replace_forward_pass(module: Any) -> None:
    import torch

    def forward_step(self: Any, micro_batch: Any, loss_function: Any, forward_only: bool) -> tuple[Any, dict[str, Any]]:
        micro_batch = micro_batch.to(module.get_device_id())
        self.prepare_model_inputs(micro_batch=micro_batch)
        input_ids = micro_batch["input_ids"]

        def made_up(value: float) -> Any:
            values = torch.full(input_ids.values().shape, value, requires_grad=not forward_only)
            return torch.nested.nested_tensor_from_jagged(values, offsets=input_ids.offsets())

        outputs = {"log_probs": made_up(-1.0), "entropy": made_up(1.0)}
        loss, metrics = torch.tensor(1.0), {}
        if loss_function is not None:
            loss, metrics = loss_function(
                model_output=outputs, data=micro_batch, dp_group=self.get_data_parallel_group()
            )
        outputs = {name: values.detach() for name, values in outputs.items()}
        return loss, {"model_output": outputs, "loss": loss.detach().item(), "metrics": metrics}

    module.FSDPEngineWithLMHead.forward_step = forward_step
    module.FSDPEngine.optimizer_step = lambda self: 0.0


def _count_bytes(module: Any) -> None:
    encode, file = module.encode, os.open(Path(os.environ[BYTES_FOLDER]) / str(os.getpid()), os.O_CREAT | os.O_RDWR)
    sent = 0

    def counting(obj: Any) -> Any:
        nonlocal sent
        frames = encode(obj)
        sent += sum(memoryview(frame).nbytes for frame in frames)
        os.pwrite(file, struct.pack("<q", sent), 0)
        return frames

    module.encode = counting


def bytes_sent(folder: Path, process: int) -> int:
    """Read the bytes that a process has sent through the transfer queue so far."""
    file = folder / str(process)
    return struct.unpack("<q", file.read_bytes())[0] if file.is_file() and file.stat().st_size else 0


def _scatter(module: Any) -> None:
    class ScatteringClient(module.OneReplicaClient):
        def __init__(self, client: Any, keeps_ids: bool) -> None:
            super().__init__(client, keeps_ids=True)

    module.OneReplicaClient = ScatteringClient


COUNTER = {"transfer_queue.utils.serial_utils": _count_bytes}
STAND_INS = {
    "verl_ext.rollout.vllm_replica": _replace_server,
    "verl.workers.rollout.base": _replace_weight_transfer,
    "verl.workers.engine.fsdp.transformer_impl": _replace_forward_pass,
}
SCATTER = {"verl_ext.rollout.shared_prompt": _scatter}


def _register(replacements: Mapping[str, Callable[..., None]]) -> None:
    """Replace parts of modules once they are imported, after calling the setup hook that `hardware/cpu.yaml` names."""
    collect_garbage_rarely()
    for name, replace in {**COUNTER, **replacements}.items():
        wrapt.register_post_import_hook(replace, name)


def with_stand_ins() -> None:
    """Setup hook for runs without vLLM and model."""
    _register(STAND_INS)


def with_engines() -> None:
    """Setup hook for runs with vLLM and model."""
    _register({})


def with_scattered_groups() -> None:
    """Setup hook for runs with vLLM and model, where the responses of a group may go to different replicas.

    Plain veRL distributes them this way.
    """
    _register(SCATTER)
