"""veRL's own example for a VLM, with its command and rows in its format, for tests of the plugin.

The example is `examples/grpo_trainer/run_qwen2_5_vl_7b_fsdp.sh` of veRL 0.9.0 with veRL's own `ppo_trainer.yaml`; rows
are in the format of `examples/data_preprocess/geo3k.py`. Sizes and hardware are adapted to the CPU; the base
configuration of our recipes is not composed.
"""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import verl
from full_stack import HANG_SECONDS
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from mmupt.compose import as_override
from mmupt.recipe_files import CONFIG_FOLDER
from mmupt_data.figure_task import Split, answer, draw_figure, encode_png, questions, sample_figures

ROOT = Path.cwd()
TWO_KEYS = (
    "reward.reward_manager.name=majority_vote",
    "+actor_rollout_ref.rollout.agent.agent_loop_manager_class=verl_ext.rollout.agent_loop.GroupAgentLoopManager",
)
SAMPLER = (
    "trainer.v1.sampler.custom_sampler.path=pkg://verl_ext.rollout.replay_buffer",
    "trainer.v1.sampler.custom_sampler.name=VoteReplayBuffer",
)
# The overrides of the script, without the paths of model and data.
EXAMPLE = (
    "algorithm.adv_estimator=grpo",
    "algorithm.use_kl_in_reward=False",
    "data.image_key=images",
    "data.train_batch_size=512",
    "data.max_prompt_length=1024",
    "data.max_response_length=2048",
    "data.filter_overlong_prompts=True",
    "data.truncation=error",
    "actor_rollout_ref.model.use_remove_padding=True",
    "actor_rollout_ref.model.enable_gradient_checkpointing=True",
    "actor_rollout_ref.actor.optim.lr=1e-6",
    "actor_rollout_ref.actor.ppo_mini_batch_size=128",
    "actor_rollout_ref.actor.use_dynamic_bsz=True",
    "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=24576",
    "actor_rollout_ref.actor.use_kl_loss=True",
    "actor_rollout_ref.actor.kl_loss_coef=0.01",
    "actor_rollout_ref.actor.kl_loss_type=low_var_kl",
    "actor_rollout_ref.actor.entropy_coeff=0",
    "actor_rollout_ref.actor.fsdp_config.param_offload=False",
    "actor_rollout_ref.actor.fsdp_config.optimizer_offload=False",
    "actor_rollout_ref.rollout.name=vllm",
    "actor_rollout_ref.rollout.tensor_model_parallel_size=2",
    "actor_rollout_ref.rollout.gpu_memory_utilization=0.6",
    "actor_rollout_ref.rollout.n=5",
    "actor_rollout_ref.rollout.log_prob_use_dynamic_bsz=True",
    "actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu=24576",
    "actor_rollout_ref.ref.log_prob_use_dynamic_bsz=True",
    "actor_rollout_ref.ref.log_prob_max_token_len_per_gpu=24576",
    "actor_rollout_ref.ref.fsdp_config.param_offload=True",
    "trainer.balance_batch=True",
    "trainer.logger=[console,wandb]",
    "trainer.project_name=verl_grpo_geo3k",
    "trainer.experiment_name=qwen2_5_vl_7b_vllm_fsdp",
    "trainer.n_gpus_per_node=8",
    "trainer.nnodes=1",
    "trainer.save_freq=20",
    "trainer.test_freq=5",
    "trainer.total_epochs=15",
    "actor_rollout_ref.actor.strategy=fsdp2",
    "actor_rollout_ref.model.use_fused_kernels=True",
    "actor_rollout_ref.rollout.multi_stage_wake_up=True",
    "actor_rollout_ref.rollout.enable_chunked_prefill=False",
    "actor_rollout_ref.rollout.enforce_eager=False",
    "actor_rollout_ref.rollout.free_cache_engine=True",
)
SMALL = {
    "data.train_batch_size": 4,
    "data.max_prompt_length": 256,
    "data.max_response_length": 32,
    "actor_rollout_ref.actor.ppo_mini_batch_size": 4,
    "actor_rollout_ref.model.path": str(ROOT / "recipes/mmupt/tiny/model"),
    "actor_rollout_ref.rollout.max_model_len": 512,
    "trainer.total_training_steps": 2,
    # The example's tracker needs a login, and its fused kernels a GPU.
    "trainer.logger": ["console", "tensorboard"],
    "actor_rollout_ref.model.use_fused_kernels": False,
    "actor_rollout_ref.ref.fsdp_config.param_offload": False,
    # hardware/cpu.yaml relies on these values of our base configuration.
    "actor_rollout_ref.actor.strategy": "fsdp2",
    "actor_rollout_ref.actor.fsdp_config.strategy": "fsdp2",
    "actor_rollout_ref.ref.strategy": "fsdp2",
    "actor_rollout_ref.ref.fsdp_config.strategy": "fsdp2",
    **{
        f"actor_rollout_ref.{part}.fsdp_config.mixed_precision.{name}_dtype": "fp32"
        for part in ("actor", "ref")
        for name in ("param", "reduce", "buffer")
    },
    "ray_kwargs.ray_init.address": "local",
    "ray_kwargs.ray_init.include_dashboard": False,
}


def forced(keys: Mapping[str, Any]) -> list[str]:
    """Overrides that set keys whether or not they exist."""
    return [f"++{as_override(key, value)}" for key, value in keys.items()]


def hardware() -> dict[str, Any]:
    """The keys of `hardware/cpu.yaml` with dotted names."""

    def leaves(block: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
        values: dict[str, Any] = {}
        for name, value in block.items():
            values |= leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
        return values

    content = OmegaConf.to_container(OmegaConf.load(CONFIG_FOLDER / "hardware" / "cpu.yaml"))
    assert isinstance(content, dict)
    # Keys of the launcher, which does not run here.
    del content["mmupt"]
    return leaves(content)


def composed(*overrides: str) -> DictConfig:
    """The composed configuration of the example."""
    folder = Path(verl.__file__).parent / "trainer" / "config"
    with initialize_config_dir(str(folder), version_base=None):
        return compose("ppo_trainer", overrides=[*EXAMPLE, *overrides])


def write_rows(file: Path, split: Split, count: int) -> None:
    """Write rows in the format of veRL's script: without ids, with ground truth, and with images as bytes and path."""
    instruction = (
        "You FIRST think about the reasoning process as an internal monologue and then provide the final answer. "
        r"The final answer MUST BE put in \boxed{}."
    )
    rows = []
    for index, figure in enumerate(sample_figures(split, count, seed=0)):
        question = questions(figure, "main")[0]
        truth = answer(figure, question)
        rows.append(
            {
                "data_source": "hiyouga/geometry3k",
                "prompt": [{"role": "user", "content": f"<image>{question.phrasings[0]} {instruction}"}],
                "images": [{"bytes": encode_png(draw_figure(figure)), "path": None}],
                "ability": "math",
                "reward_model": {"style": "rule", "ground_truth": truth},
                "extra_info": {"split": split, "index": index, "answer": truth, "question": question.phrasings[0]},
            }
        )
    pq.write_table(pa.Table.from_pylist(rows), file)


def run_main_ppo(folder: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    """Run the example's command on 12 training rows and 6 validation rows."""
    for name, split, count in (("train", "train", 12), ("test", "test", 6)):
        write_rows(folder / f"{name}.parquet", split, count)
    keys = {
        "data.train_files": str(folder / "train.parquet"),
        "data.val_files": str(folder / "test.parquet"),
        "trainer.default_local_dir": str(folder / "checkpoints"),
        "trainer.rollout_data_dir": str(folder / "rollouts"),
        "trainer.validation_data_dir": str(folder / "validation"),
    }
    command = [sys.executable, "-m", "verl.trainer.main_ppo", *EXAMPLE, *overrides]
    command += forced(hardware() | SMALL | keys)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TENSORBOARD_DIR": str(folder / "tensorboard")}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=HANG_SECONDS)
