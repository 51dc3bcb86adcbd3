"""Generates responses with vLLM: one engine in this process, or one in each of several Ray actors.

`mmupt.evaluation.evaluate` selects the questions and scores the responses.
"""

import gc
import hashlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mmupt.console import Part, emit
from mmupt.evaluation.generation_settings import GenerationSettings
from mmupt.evaluation.messages import engine_prompt
from mmupt.evaluation.prompt_processor import load_processor
from mmupt.evaluation.response_files import Mode, Response
from mmupt.hardware import CPU, ray_address, use_cpu_variables
from mmupt.runtime.folder_checks import problems_of_working_directory
from mmupt.runtime.model_checks import problems_of_serving
from verl_ext.images import ImageError

if TYPE_CHECKING:
    from vllm import SamplingParams, TokensPrompt

# Open prompts per engine. A megapixel image with its patches takes 30 MB.
PROMPTS_AT_ONCE = 256
# GenerationSettings that need another engine when they change; all others are set per request.
ENGINE_SETTINGS = (
    *("model", "dtype", "device", "seed", "max_model_len", "tensor_parallel_size", "engine"),
    "chat_template_kwargs",
)
# Prompts processed between two steps of an engine, which waits for them.
PROMPTS_PER_STEP = 16


class EngineError(ValueError):
    """No engine can serve the model; the message names the problem and the fix."""


@dataclass(frozen=True)
class QuestionRequest:
    """A request for all responses of one mode to a row; `name` is that of the file of responses."""

    name: str
    mode: Mode
    row: Mapping[str, Any]


@dataclass(frozen=True)
class QuestionResponses:
    """All responses of one mode to one row."""

    name: str
    responses: tuple[Response, ...]


class Refused(ValueError):
    """The model cannot be asked this question; the message says why."""


def empty_responses(asked: QuestionRequest, settings: GenerationSettings, why: str) -> QuestionResponses:
    """Make empty responses to a question that the model cannot be asked."""
    count = 1 if asked.mode == "greedy" else settings.samples
    responses = (Response(asked.row["id"], asked.mode, index, "", 0, why) for index in range(count))
    return QuestionResponses(asked.name, tuple(responses))


def require_responses(answered: QuestionResponses) -> QuestionResponses:
    """Return the responses unchanged; raises Refused if the question could not be asked."""
    for response in answered.responses:
        if response.not_asked is not None:
            raise Refused(f"question {response.id!r} of {answered.name}: {response.not_asked}")
    return answered


@dataclass
class _Group:
    """The open responses to one request; `opening` is set while their first tokens are sampled separately."""

    asked: QuestionRequest
    settings: GenerationSettings
    prompt: "TokensPrompt"
    sampling: "SamplingParams"
    opening: bool
    missing: int
    tokens: dict[int, list[int]] = field(default_factory=dict)


class Replica:
    """One engine, on `tensor_parallel_size` GPUs or on the CPU; `images` is the largest number of images per prompt."""

    def __init__(self, settings: GenerationSettings, images: int) -> None:
        start = time.perf_counter()
        if settings.device == "cpu":
            use_cpu_variables()
        from vllm import LLM

        self._settings, self._images = settings, images
        self._processor = load_processor(settings.model, settings.chat_template_kwargs or {})
        rollout = CPU.actor_rollout_ref.rollout
        on_cpu = {"enforce_eager": rollout.enforce_eager, **rollout.engine_kwargs.vllm}
        self._engine = LLM(
            model=settings.model,
            dtype=settings.dtype,
            seed=settings.seed,
            max_model_len=settings.max_model_len,
            tensor_parallel_size=settings.tensor_parallel_size,
            limit_mm_per_prompt={"image": images, "video": 0},
            **{**(on_cpu if settings.device == "cpu" else {}), **(settings.engine or {})},
        )
        print(f"{settings.model}: ready after {time.perf_counter() - start:.0f} s", flush=True)

    def serves(self, settings: GenerationSettings, images: int) -> bool:
        """Whether the engine can serve these settings and this number of images per prompt."""
        same = all(getattr(settings, name) == getattr(self._settings, name) for name in ENGINE_SETTINGS)
        return same and images <= self._images

    def answers(self, settings: GenerationSettings, asked: Iterator[QuestionRequest]) -> Iterator[QuestionResponses]:
        """Answer questions with continuous batching, and yield each as soon as it is finished.

        The engine must serve the `settings`, see `serves`. Questions that it refuses, such as overlong ones, and those
        with an image that cannot be decoded get empty responses that say why.
        """
        # By request id, with the index of the response if the request is for a single response.
        open_requests: dict[str, tuple[_Group, int | None]] = {}
        exhausted = False
        while open_requests or not exhausted:
            for _ in range(PROMPTS_PER_STEP):
                if exhausted or len(open_requests) >= PROMPTS_AT_ONCE:
                    break
                question = next(asked, None)
                if question is None:
                    exhausted = True
                    continue
                try:
                    group = self._group(settings, question)
                    sampling = self._first_token(group) if group.opening else group.sampling
                    request = self._add(group, group.prompt, sampling)
                except Refused as refused:
                    yield empty_responses(question, settings, str(refused))
                else:
                    open_requests[request] = group, None
            if not open_requests:
                continue
            for output in self._engine.llm_engine.step():
                if not output.finished:
                    continue
                group, number = open_requests.pop(output.request_id)
                for completion in output.outputs:
                    index = completion.index if number is None else number
                    group.tokens.setdefault(index, []).extend(completion.token_ids)
                    if group.opening and completion.finish_reason == "length" and group.sampling.max_tokens > 1:
                        prompt, sampling = self._rest(group, index)
                        open_requests[self._add(group, prompt, sampling)] = group, index
                    else:
                        group.missing -= 1
                if number is None:
                    group.opening = False
                if not group.missing:
                    yield self._answered(group)

    def _group(self, settings: GenerationSettings, asked: QuestionRequest) -> _Group:
        from vllm import SamplingParams

        # A seed per question makes responses independent of order and of other questions. Not on the CPU: for a prompt
        # processed in chunks, vLLM 0.24.0 rewinds the generator (gpu_model_runner.py, _bookkeeping_sync), which CPU
        # generators do not support.
        seed = int.from_bytes(hashlib.sha256(f"{settings.seed} {asked.row['id']}".encode()).digest()[:4], "big")
        greedy = asked.mode == "greedy"
        sampling = SamplingParams(
            n=1 if greedy else settings.samples,
            temperature=0.0 if greedy else settings.temperature,
            top_p=1.0 if greedy else settings.top_p,
            seed=None if greedy or settings.device == "cpu" else seed,
            max_tokens=settings.max_tokens,
            # veRL decodes a response without its prompt; vLLM would decode it after the prompt, with other spaces.
            detokenize=False,
        )
        if asked.row.get("images") and self._processor.image_processor is None:
            raise Refused("the question has images, and the model reads only text")
        try:
            prompt = engine_prompt(
                dict(asked.row),
                self._processor,
                settings.limits,
                settings.instruction,
                settings.system_prompt,
            )
        except ImageError as error:
            raise Refused(f"an image {error}") from error
        return _Group(asked, settings, prompt, sampling, bool(settings.forbidden_openings), sampling.n)

    def _first_token(self, group: _Group) -> "SamplingParams":
        # vLLM forbids words only in whole responses, so the first token is sampled separately.
        sampling = group.sampling.clone()
        sampling.min_tokens = sampling.max_tokens = 1
        sampling.bad_words = list(group.settings.forbidden_openings)
        return sampling

    def _rest(self, group: _Group, index: int) -> "tuple[TokensPrompt, SamplingParams]":
        sampling = group.sampling.clone()
        sampling.n, sampling.max_tokens = 1, group.sampling.max_tokens - 1
        if sampling.seed is not None:
            sampling.seed += group.sampling.n + index
        ids = [*group.prompt["prompt_token_ids"], *group.tokens[index]]
        return {**group.prompt, "prompt_token_ids": ids}, sampling

    def _add(self, group: _Group, prompt: "TokensPrompt", sampling: "SamplingParams") -> str:
        try:
            (request,) = self._engine.enqueue(prompt, sampling, use_tqdm=False)
        except ValueError as error:
            raise Refused(str(error)) from error
        # vLLM returns the id with a random suffix, which its outputs lack (v1/engine/input_processor.py).
        return request.rpartition("-")[0]

    def _answered(self, group: _Group) -> QuestionResponses:
        id_, mode = group.asked.row["id"], group.asked.mode
        decode = self._processor.tokenizer.decode
        responses = (
            Response(id_, mode, index, decode(tokens, skip_special_tokens=True), len(tokens))
            for index, tokens in sorted(group.tokens.items())
        )
        return QuestionResponses(group.asked.name, tuple(responses))


class ReusableEngine:
    """The replica of this process, which later calls of `answer_questions` reuse as long as it can serve them."""

    def __init__(self) -> None:
        self._replica: Replica | None = None

    def replica(self, settings: GenerationSettings, images: int) -> Replica:
        """Return the current replica if it can serve, else start another."""
        if self._replica is None or not self._replica.serves(settings, images):
            self._replica = None
            # Frees the memory for the next replica.
            gc.collect()
            emit(Part("start the engine"))
            self._replica = Replica(settings, images)
        return self._replica


def answer_questions(
    settings: GenerationSettings, asked: Sequence[QuestionRequest], engine: ReusableEngine | None = None
) -> Iterator[QuestionResponses]:
    """Answer questions with `settings.replicas` replicas: one in this process, several as Ray actors.

    A single replica lives as long as `engine`.

    Raises:
        EngineError: before an engine starts, for known problems of the model or this machine.
    """
    problems = list(problems_of_serving(settings.model, os.environ))
    if settings.replicas > 1:
        problems += problems_of_working_directory()
    if problems:
        raise EngineError("; ".join(problems))
    images = max((len(request.row["images"] or []) for request in asked), default=0)
    if settings.replicas == 1:
        yield from (engine or ReusableEngine()).replica(settings, images).answers(settings, iter(asked))
        return
    import ray
    from ray.util.queue import Queue

    emit(Part("start the engines"))
    variables = dict(CPU.ray_kwargs.ray_init.runtime_env.env_vars) if settings.device == "cpu" else {}
    ray.init(address=ray_address(), include_dashboard=False, runtime_env={"env_vars": variables})
    try:
        # Each replica takes the next question when it has room.
        waiting = Queue()
        waiting.put_nowait_batch(list(asked))
        gpus = settings.tensor_parallel_size if settings.device == "cuda" else 0
        actor = ray.remote(num_cpus=1, num_gpus=gpus)(_RayReplica)
        replicas = [actor.remote(settings, images, waiting) for _ in range(settings.replicas)]
        streams = [replica.answers.options(num_returns="streaming").remote() for replica in replicas]
        while streams:
            (ready,), _ = ray.wait(streams, num_returns=1)
            try:
                yield ray.get(next(ready))
            except StopIteration:
                streams.remove(ready)
    finally:
        ray.shutdown()


class _RayReplica:
    """A `Replica` that takes questions from a queue until it is empty."""

    def __init__(self, settings: GenerationSettings, images: int, waiting: Any) -> None:
        self._settings, self._waiting = settings, waiting
        self._replica = Replica(settings, images)

    def answers(self) -> Iterator[QuestionResponses]:
        """As `Replica.answers`."""
        yield from self._replica.answers(self._settings, self._taken())

    def _taken(self) -> Iterator[QuestionRequest]:
        from ray.util.queue import Empty

        while True:
            try:
                yield self._waiting.get_nowait()
            except Empty:
                return
