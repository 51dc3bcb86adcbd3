"""Estimates the memory of a recipe on each GPU from its config and the shape of its model.

    mmupt memory                                        # the table of recipes/mmupt/README.md
    mmupt memory mmupt_mathvista hardware=gpu_4x80gb    # one recipe, part by part

No run has confirmed the arithmetic; the launcher prints the estimate and starts in any case. It counts the memory of
veRL's FSDP2 engine (verl/workers/engine/fsdp/transformer_impl.py) and its workers (verl/workers/engine_workers.py):

  weights, gradients  in fsdp_config.model_dtype, fp32 by default, sharded over all ranks
  moments             the two of AdamW, in the dtype of the weights
  gathered            unsharded weights that FSDP2 holds at a time, in the compute dtype: the embeddings and two layers
  reduced             unsharded gradient of the largest FSDP2 module: in the compute dtype, and in reduce_dtype while it
                      is summed over ranks, with this rank's shard of the sum (foreach_reduce in
                      torch/distributed/fsdp/_fully_shard/_fsdp_collectives.py)
  activations         one micro-batch; the vision tower counts all of its tokens as visual. In an update, of
                      ppo_max_token_len_per_gpu tokens: the input of every layer (gradient checkpointing), plus the
                      largest of the output layer, one layer of the language model and one of the vision tower. In a
                      pass of log-probabilities, of log_prob_max_token_len_per_gpu tokens: the largest of the three
  output layer        with use_fused_kernels, 512 tokens at a time, and twice the gradient of its weights; without, as
                      many copies of the logits of a micro-batch as PACKED_COPIES or PADDED_COPIES has
  reference           its engine always offloads, so its weights are in main memory; none with LoRA, where the
                      reference is the actor without adapters
  vLLM                gpu_memory_utilization of the GPU while it generates, nothing while it sleeps; beside its weights,
                      this holds its activations and the cache, which needs room for one request of max_model_len tokens
  images              in main memory, one per prompt, as large as data.max_pixels or data.max_prompt_length allow, as
                      bytes (verl_ext/rollout/pixel_codes.py): once per prompt for the engines while they generate, once
                      in the transfer queue, and once in every rank that trains on a response to the prompt. A rank also
                      holds the fp32 pixel values of one micro-batch twice, per response and concatenated
                      (benchmarks/paper_step.py measures these)

param_offload and optimizer_offload free the GPU only between updates; offload_policy also frees it during an update.
"""

from dataclasses import dataclass

from omegaconf import DictConfig

from mmupt.compose import load_recipe
from mmupt.models import ModelShape, shape_of
from mmupt.reports.tables import markdown_table
from mmupt.training.adapters import excludes_vision, lora_rank

GIB = 2**30
BYTES = {"fp32": 4, "float32": 4, "float": 4}
BYTES |= dict.fromkeys(("bf16", "bfloat16", "fp16", "float16", "half", "auto"), 2)

# Copies of the logits of a micro-batch without fused kernels, in the compute dtype.
# Packed (flash-attn): the logits, and the logits divided by the temperature; in an update their two gradients, in
# log-probabilities the softmax for the entropy and its product with the logits.
# Padded: the logits, divided by the temperature, and concatenated without padding; in an update the log-softmax and two
# gradients, in log-probabilities the same two for the entropy.
PACKED_COPIES = {"update": 4, "log-probabilities": 4}
PADDED_COPIES = {"update": 6, "log-probabilities": 5}
# If entropy is computed for 2,048 tokens at a time, which veRL does only for packed sequences.
CHUNKED_ENTROPY_COPIES = 2
# Tokens that fused kernels process at a time, and fp32 copies of their logits beside one in the compute dtype
# (FusedLinearForPPO in verl/utils/experimental/torch_functional.py).
FUSED_TOKENS, FUSED_COPIES = 512, 5
# Vectors of hidden and intermediate size that a layer keeps per token for its backward pass.
HIDDEN_VECTORS, INTERMEDIATE_VECTORS = 10, 4
# Identical frames of an image in its pixel values.
FRAMES = 2
# Assumed GiB of CUDA contexts of trainer and vLLM, NCCL, CUDA graphs and fragmentation.
OTHER = 4.0
# Assumed GiB of vLLM beside weights and cache.
VLLM_ACTIVATIONS = 2.0

# Recipe, model and hardware of each row of the table in recipes/mmupt/README.md.
TABLE_ROWS = (
    ("mmupt_mathvista", "qwen2_5_vl_7b", "gpu_8x80gb"),
    ("mmupt_mathvista", "qwen2_5_vl_7b", "gpu_4x80gb"),
    ("mmupt_mathvista", "qwen2_5_vl_7b", "gpu_nodes_8x80gb"),
    ("mmupt_mathvista", "qwen2_5_vl_7b", "gpu_1x80gb"),
    ("mmupt_mathvista", "qwen2_5_vl_3b", "gpu_1x80gb"),
    ("mmupt_mathvista", "qwen2_5_vl_3b", "gpu_1x24gb"),
    ("mmupt_smoke", "qwen2_5_vl_3b", "gpu_1x80gb"),
)

ADVICE = {
    "generation": "lower actor_rollout_ref.rollout.gpu_memory_utilization, or set "
    "actor_rollout_ref.actor.fsdp_config.param_offload=True and .optimizer_offload=True",
    "weight transfer": "raise actor_rollout_ref.rollout.tensor_model_parallel_size, or set "
    "actor_rollout_ref.actor.fsdp_config.optimizer_offload=True",
    "log-probabilities": "lower actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu (a prompt with its response "
    "must fit)",
    "update": "lower actor_rollout_ref.actor.ppo_max_token_len_per_gpu (a prompt with its response must fit), use more "
    "GPUs or a smaller model, set actor_rollout_ref.actor.fsdp_config.offload_policy=True (slow), or train adapters as "
    "hardware=gpu_1x24gb does",
    "optimizer step": "use more GPUs or a smaller model, set actor_rollout_ref.actor.fsdp_config.offload_policy=True "
    "(slow), or train adapters as hardware=gpu_1x24gb does",
}


@dataclass(frozen=True)
class Estimate:
    """GiB of one GPU by phase of a step and part, and GiB of main memory per machine by part."""

    phases: dict[str, dict[str, float]]
    main_memory: dict[str, float]

    def peak(self) -> tuple[str, float]:
        """The phase that takes the most GPU memory, and its GiB."""
        return max(((phase, sum(parts.values())) for phase, parts in self.phases.items()), key=lambda item: item[1])


def estimate(config: DictConfig, shape: ModelShape) -> Estimate:
    """Estimate the memory of a composed recipe, which must set `mmupt.gpu_memory_gib`."""
    actor, model, rollout = (config.actor_rollout_ref[name] for name in ("actor", "model", "rollout"))
    fsdp = actor.fsdp_config
    ranks = config.trainer.n_gpus_per_node * config.trainer.nnodes
    shards = ranks if fsdp.fsdp_size < 0 else min(fsdp.fsdp_size, ranks)
    size = BYTES[fsdp.model_dtype or "fp32"]
    rank = lora_rank(config)
    adapters = shape.adapters(rank, with_vision=not excludes_vision(model.exclude_modules))

    # Adapters are in fp32 whatever the dtype of the frozen weights (verl_ext/patches/adapters_in_fp32.py).
    weights = (shape.parameters * size + adapters * BYTES["fp32"]) / shards / GIB
    gradients = (adapters * BYTES["fp32"] if rank else shape.parameters * size) / shards / GIB
    moments = 2 * gradients
    is_offloaded = {
        "weights": fsdp.param_offload or fsdp.offload_policy,
        "moments": fsdp.optimizer_offload or fsdp.offload_policy,
    }
    # Between updates.
    resident = {
        "weights": 0.0 if is_offloaded["weights"] else weights,
        "moments": 0.0 if is_offloaded["moments"] else moments,
    }
    training = {"weights": weights, "gradients": gradients, "moments": moments} if not fsdp.offload_policy else {}

    vllm = rollout.gpu_memory_utilization * config.mmupt.gpu_memory_gib
    sleeps = rollout.enable_sleep_mode and rollout.free_cache_engine
    vllm_in_training = {} if sleeps else {"vLLM": vllm}
    served = shape.parameters * BYTES[rollout.dtype] / rollout.tensor_model_parallel_size / GIB
    transfer = {
        "vLLM's weights": served,
        # With adapters, veRL first loads this rank's whole shard onto the GPU; otherwise it moves one tensor at a time.
        "weights": weights if rank and not fsdp.offload_policy else resident["weights"],
        "moments": resident["moments"],
        "bucket": rollout.checkpoint_engine.update_weights_bucket_megabytes / 1024,
    }
    unsharded = {"gathered": gathered(config, shape)}
    micro_batch = {**unsharded, "reduced": reduced(config, shape, shards), "activations": activations(config, shape)}
    # AdamW updates one tensor of FSDP2 at a time, with two temporaries; the largest is the embedding table.
    table = 0 if rank else shape.language.vocabulary * shape.language.hidden
    step = {"temporaries": 2 * table * size / shards / GIB} if training else {}
    phases = {
        "generation": {"vLLM's weights": served, "vLLM's cache and activations": vllm - served, **resident},
        "log-probabilities": {
            **vllm_in_training,
            **({} if fsdp.offload_policy else {"weights": weights, "moments": resident["moments"]}),
            **unsharded,
            "activations": forward_activations(config, shape),
        },
        "weight transfer": transfer,
        "update": {**vllm_in_training, **training, **micro_batch},
        "optimizer step": {**vllm_in_training, **training, **step},
    }

    offloaded = sum(
        (is_offloaded["weights"] * weights, is_offloaded["moments"] * moments, fsdp.offload_policy * gradients)
    )
    if rank:
        # With adapters, vLLM's weights are in main memory while it sleeps; otherwise they are discarded.
        offloaded += served
    elif actor.use_kl_loss or config.algorithm.use_kl_in_reward:
        reference_dtype = config.actor_rollout_ref.ref.fsdp_config.model_dtype
        offloaded += shape.parameters * BYTES[reference_dtype or "bf16"] / shards / GIB
    main_memory = {"model": offloaded * config.trainer.n_gpus_per_node, **images(config, shape)}
    return Estimate({phase: {**parts, "other": OTHER} for phase, parts in phases.items()}, main_memory)


def images(config: DictConfig, shape: ModelShape) -> dict[str, float]:
    """GiB of the images of a step per machine, by location.

    Responses are assigned to ranks by length, so the responses to one prompt are assumed to be scattered at random.
    """
    vision = shape.vision
    if vision is None:
        return {}
    trainer, prompts = config.trainer, config.data.train_batch_size
    ranks = trainer.n_gpus_per_node * trainer.nnodes
    # A visual token has `merge` patches, and a patch `patch` pixel values, `FRAMES` per byte of the image.
    patches = vision.merge * config.data.max_prompt_length
    if config.data.max_pixels is not None:
        patches = min(patches, 3 * config.data.max_pixels * FRAMES // vision.patch)
    image = patches * vision.patch / FRAMES / GIB
    prompts_per_rank = prompts * (1 - (1 - 1 / ranks) ** config.actor_rollout_ref.rollout.n)
    # Asynchronous trainers have more batches in flight.
    batches = 1 + (trainer.v1.get(trainer.v1.trainer_mode) or {}).get("num_warmup_batches", 0)
    micro_batch = 2 * vision.merge * tokens_of_micro_batch(config) * vision.patch * BYTES["fp32"] / GIB
    return {
        "images for the engines": batches * prompts * image / trainer.nnodes,
        "image features in the queue": batches * prompts * image / trainer.nnodes,
        "image features in the ranks": (prompts_per_rank * image + micro_batch) * trainer.n_gpus_per_node,
    }


def tokens_of_micro_batch(config: DictConfig) -> int:
    """The largest number of tokens in a micro-batch of an update."""
    actor = config.actor_rollout_ref.actor
    longest = config.data.max_prompt_length + config.data.max_response_length
    return actor.ppo_max_token_len_per_gpu if actor.use_dynamic_bsz else actor.ppo_micro_batch_size_per_gpu * longest


def gathered(config: DictConfig, shape: ModelShape) -> float:
    """GiB of the unsharded weights that FSDP2 holds at a time."""
    size = BYTES[config.actor_rollout_ref.actor.fsdp_config.mixed_precision.param_dtype]
    return (shape.language.embeddings + 2 * shape.largest_layer) * size / GIB


def reduced(config: DictConfig, shape: ModelShape, shards: int) -> float:
    """GiB of the largest gradient that FSDP2 sums over ranks at a time."""
    model, fsdp = config.actor_rollout_ref.model, config.actor_rollout_ref.actor.fsdp_config
    if lora_rank(config):
        layers = len(shape.language.layers)
        largest = shape.adapters(lora_rank(config), with_vision=not excludes_vision(model.exclude_modules)) // layers
    else:
        largest = max(shape.language.vocabulary * shape.language.hidden, shape.largest_layer)
    precision = fsdp.mixed_precision
    summed = BYTES[precision.reduce_dtype] * (1 + 1 / shards)
    return largest * (BYTES[precision.param_dtype] + summed) / GIB


def activations(config: DictConfig, shape: ModelShape) -> float:
    """Peak GiB of the activations of an update's micro-batch, including the output layer."""
    tokens = tokens_of_micro_batch(config)
    layers = _layers(shape, tokens)
    output = output_layer(config, shape, tokens, "update")
    size = BYTES[config.actor_rollout_ref.actor.fsdp_config.mixed_precision.param_dtype] / GIB
    if config.actor_rollout_ref.model.enable_gradient_checkpointing:
        inputs = 0.0 if config.actor_rollout_ref.model.enable_activation_offload else _inputs(shape, tokens) * size
        return inputs + max(output, max(per_layer for per_layer, _ in layers) * size)
    return sum(per_layer * count for per_layer, count in layers) * size + output


def forward_activations(config: DictConfig, shape: ModelShape) -> float:
    """Peak GiB of the activations of a micro-batch in a pass of log-probabilities, including the output layer."""
    rollout = config.actor_rollout_ref.rollout
    longest = config.data.max_prompt_length + config.data.max_response_length
    tokens = rollout.log_prob_max_token_len_per_gpu
    if not rollout.log_prob_use_dynamic_bsz:
        tokens = rollout.log_prob_micro_batch_size_per_gpu * longest
    size = BYTES[config.actor_rollout_ref.actor.fsdp_config.mixed_precision.param_dtype] / GIB
    largest = max(per_layer for per_layer, _ in _layers(shape, tokens))
    return max(output_layer(config, shape, tokens, "log-probabilities"), largest * size)


def output_layer(config: DictConfig, shape: ModelShape, tokens: int, phase: str) -> float:
    """GiB of the output layer without its weights, in the phase `update` or `log-probabilities`."""
    model, actor = config.actor_rollout_ref.model, config.actor_rollout_ref.actor
    size, vocabulary = BYTES[actor.fsdp_config.mixed_precision.param_dtype], shape.language.vocabulary
    if model.use_fused_kernels:
        chunk = min(tokens, FUSED_TOKENS) * vocabulary * (FUSED_COPIES * BYTES["fp32"] + size)
        trained = phase == "update" and not lora_rank(config)
        return (chunk + (2 * vocabulary * shape.language.hidden * size if trained else 0)) / GIB
    copies = (PACKED_COPIES if model.use_remove_padding else PADDED_COPIES)[phase]
    if phase == "log-probabilities" and model.use_remove_padding and actor.entropy_from_logits_with_chunking:
        copies = CHUNKED_ENTROPY_COPIES
    return copies * tokens * vocabulary * size / GIB


def _layers(shape: ModelShape, tokens: int) -> list[tuple[int, int]]:
    """Of language model and vision tower: the values that a layer keeps for its gradient, and the number of layers."""
    language, vision = shape.language, shape.vision
    layers = [(tokens * _vectors(language.hidden, language.intermediate), len(language.layers))]
    if vision is not None:
        layers.append((vision.merge * tokens * _vectors(vision.hidden, vision.intermediate), len(vision.layers)))
    return layers


def _inputs(shape: ModelShape, tokens: int) -> int:
    """The number of values in the inputs of all layers."""
    language, vision = shape.language, shape.vision
    visual = len(vision.layers) * vision.merge * tokens * vision.hidden if vision is not None else 0
    return len(language.layers) * tokens * language.hidden + visual


def _vectors(hidden: int, intermediate: int) -> int:
    return HIDDEN_VECTORS * hidden + INTERMEDIATE_VECTORS * intermediate


def report(config: DictConfig) -> str:
    """Return the estimate of a composed recipe as text, with a warning per phase that exceeds the GPU."""
    model, available = config.actor_rollout_ref.model.path, config.mmupt.gpu_memory_gib
    shape = shape_of(model)
    if shape is None:
        return f"No estimate of GPU memory: the shape of {model} is not known; recipes/mmupt/models has the known ones."
    if available is None:
        return "No estimate of GPU memory: set mmupt.gpu_memory_gib."
    result = estimate(config, shape)
    size = f"{model}: {shape.parameters / 1e9:.2f}e9 parameters"
    lines = [f"Estimate of GPU memory, GiB of {available} per GPU; not measured. {size}"]
    for phase, parts in result.phases.items():
        summands = ", ".join(f"{name} {gib:.1f}" for name, gib in parts.items() if gib >= 0.05)
        lines.append(f"  {phase:15} {sum(parts.values()):6.1f} = {summands}")
    main = result.main_memory
    summands = ", ".join(f"{name} {gib:.0f}" for name, gib in main.items())
    lines.append(f"  main memory of the run per machine: {sum(main.values()):.0f} = {summands}")
    lines.append(f"  {requests(config, shape, result)}")
    for phase, parts in result.phases.items():
        if sum(parts.values()) > available:
            lines.append(f"WARNING: {phase} may run out of GPU memory: {ADVICE[phase]}.")
    return "\n".join(lines)


def requests(config: DictConfig, shape: ModelShape, result: Estimate) -> str:
    """Return a sentence on how many requests of full length fit into vLLM's cache, or a warning if none does."""
    rollout = config.actor_rollout_ref.rollout
    per_request = (
        rollout.max_model_len * shape.language.cached * BYTES[rollout.dtype] / rollout.tensor_model_parallel_size / GIB
    )
    cache = result.phases["generation"]["vLLM's cache and activations"] - VLLM_ACTIVATIONS
    if cache < per_request:
        return (
            f"WARNING: vLLM may not start: a request of {rollout.max_model_len} tokens takes {per_request:.1f} GiB of "
            f"cache, and there are {max(cache, 0.0):.1f}: lower actor_rollout_ref.rollout.max_model_len or raise "
            "actor_rollout_ref.rollout.gpu_memory_utilization."
        )
    return (
        f"vLLM's cache has room for {int(cache / per_request)} requests of {rollout.max_model_len} tokens, "
        f"{per_request:.2f} GiB each"
    )


def table() -> str:
    """Return the estimates of `TABLE_ROWS` as a Markdown table."""
    head = ("recipe", "model", "hardware", "GPU, GiB", "estimate, GiB", "in", "main memory, GiB")
    rows: list[tuple[str, ...]] = [head]
    for recipe, model, hardware in TABLE_ROWS:
        config, _ = load_recipe(recipe, [f"model={model}", f"hardware={hardware}"])
        shape = shape_of(config.actor_rollout_ref.model.path)
        assert shape is not None
        result = estimate(config, shape)
        phase, gib = result.peak()
        available = config.mmupt.gpu_memory_gib
        fits = "" if gib <= available else ": does not fit"
        main_memory = f"{sum(result.main_memory.values()):.0f}"
        rows.append((recipe, model, hardware, str(available), f"{gib:.0f}{fits}", phase, main_memory))
    return markdown_table(rows)
