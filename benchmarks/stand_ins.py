"""Stand-ins for vLLM and for the forward pass of the actor, so that a step of any size runs on two cores.

All else is the real run. `with_stand_ins` is Ray's `worker_process_setup_hook`: in each process it replaces, as they
are imported, veRL's vLLM server by `StandInServer`, the transfer of weights by nothing, and the forward pass of an FSDP
engine by made-up log-probabilities of the right shape, after the engine has read all that the pass would take. It also
counts the bytes that the process sends through the transfer queue, in a file of its own.

Responses are drawn as a 7B model gives them: lengths are lognormal, answers those of `vote_groups.py`.
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

# Folder of one file for each process, named by its id, that holds the bytes it has sent through the transfer queue.
BYTES_FOLDER = "STAND_IN_BYTES_FOLDER"
# Seconds that the stand-in for vLLM takes for a token.
SECONDS_PER_TOKEN = "STAND_IN_SECONDS_PER_TOKEN"

# Tokens of a response: the median, and the spread of the logarithm.
MEDIAN_TOKENS, SPREAD = 300, 0.6
QUESTION = re.compile(r"Question (\d+):")


def question(number: int) -> str:
    """The text by which `StandInServer` knows which group of answers a prompt gets."""
    return f"<image>Question {number}: what is the length of the longest side of the figure?"


def draw_group(number: int, responses: int) -> Any:
    """The answers to question `number`, the same in every process."""
    from benchmarks.vote_groups import draw_groups

    return draw_groups(1, responses, seed=number)[0]


def draw_length(rng: random.Random, limit: int) -> int:
    """The tokens of a response."""
    return min(limit, max(16, round(rng.lognormvariate(math.log(MEDIAN_TOKENS), SPREAD))))


def model_for_large_images(folder: Path) -> Path:
    """Copy the tiny model with the limits of pixels that Qwen2.5-VL's own processor has."""
    from mmupt.tiny import FOLDER

    shutil.copytree(FOLDER, folder)
    file = folder / "processor_config.json"
    config = json.loads(file.read_text())
    config["image_processor"]["size"] = {"shortest_edge": 3136, "longest_edge": 12_845_056}
    file.write_text(json.dumps(config))
    return folder


def model_of_bytes(folder: Path) -> Path:
    """As `model_for_large_images`, with a tokenizer that can write anything: a token is a byte."""
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
    """Answers as veRL's `vLLMHttpServer` does, with the tokens of made-up responses, in a Ray actor of its own."""

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
        """Return one response to a prompt, after as many seconds as its tokens take."""
        from verl.workers.rollout.replica import TokenOutput

        number = self._number(prompt_ids)
        if number not in self._answers:
            texts = [
                "no answer" if answer is None else f"\\boxed{{{answer}}}"
                for answer in draw_group(number, self._responses).answers
            ]
            ends = self._tokenizer.eos_token_id
            self._answers[number] = [[*self._tokenizer.encode(text), ends] for text in texts]
        answer = self._random.choice(self._answers[number])
        length = max(len(answer), draw_length(self._random, self._limit))
        tokens = [self._filler] * (length - len(answer)) + answer
        await asyncio.sleep(self._seconds_per_token * length)
        fields = {"global_steps": self.global_steps}
        return TokenOutput(token_ids=tokens, log_probs=[-1.0] * length, stop_reason="completed", extra_fields=fields)

    async def generate_group(
        self, request_ids: list[str], *, sampling_params: dict[str, Any], **request: Any
    ) -> list[Any]:
        """As `verl_ext.rollout.group_server.GroupServer`."""
        requests = [self.generate(request_id=name, sampling_params=sampling_params, **request) for name in request_ids]
        return list(await asyncio.gather(*requests))

    def _number(self, prompt_ids: list[int]) -> int:
        found = QUESTION.search(self._tokenizer.decode(prompt_ids[-200:]))
        assert found is not None
        return int(found[1])

    async def ready(self) -> None:
        """Return once the server is there."""

    async def wake_up(self) -> None:
        """Nothing sleeps."""

    async def sleep(self) -> None:
        """Nothing is freed."""

    async def clear_kv_cache(self) -> None:
        """Nothing is cached."""


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
    """The bytes that a process has sent through the transfer queue so far."""
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


def _arm(replacements: Mapping[str, Callable[..., None]]) -> None:
    """Replace parts of modules once they are imported, after what `hardware/cpu.yaml` runs here."""
    collect_garbage_rarely()
    for name, replace in {**COUNTER, **replacements}.items():
        wrapt.register_post_import_hook(replace, name)


def with_stand_ins() -> None:
    """For a process of a run without a model."""
    _arm(STAND_INS)


def with_engines() -> None:
    """For a process of a run as it is."""
    _arm({})


def with_scattered_groups() -> None:
    """For a process of a run in which each response of a group may go to another replica, as in plain veRL."""
    _arm(SCATTER)
