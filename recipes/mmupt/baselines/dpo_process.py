"""The training process of `train_dpo`: TRL's `DPOTrainer` on a file of pairs.

    python -m mmupt.baselines.dpo_process FOLDER

Reads settings, model and file from `FOLDER/parameters.json`, which `mmupt.baselines.training_folder` writes.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from accelerate import PartialState
from datasets import Dataset
from transformers import AutoConfig, TrainerCallback
from transformers.utils.logging import disable_progress_bar
from trl import DPOConfig, DPOTrainer
from verl.utils.model import get_hf_auto_model_class

from mmupt.baselines.dpo import DpoSettings
from mmupt.baselines.preference_pairs import PairCollator
from mmupt.baselines.training_folder import CHECKPOINTS, PARAMETERS, POLICY
from mmupt.baselines.training_sets import PAIRS, training_columns
from mmupt.console import Progress, emit
from mmupt.evaluation.prompt_processor import load_processor
from mmupt.runtime.export import make_readable
from verl_ext.checkpoints import MARKER, mark_whole
from verl_ext.files import replacing, write_json_lines

# Processes per GPU that decode and scale images. On the CPU they would compete with the model.
LOADERS_PER_GPU = 4


class VisionDpoTrainer(DPOTrainer):
    """TRL's trainer with two fixes.

    Sharding: accelerate 1.15.0 makes the LM head its own FSDP2 unit (`fsdp2_prepare_model`). TRL 1.16.0 reads the
    weight of the head without calling the head (`add_fused_lm_head`), so FSDP2 does not reduce its gradient over
    processes: each process would update its shard from its own pairs alone. Here the head, and the embeddings that may
    share its tensor, stay in the unit of the whole model, whose forward TRL does call.

    Resuming: transformers 5.9.0 saves the weights of a checkpoint under their hub names but loads them by module names
    (`Trainer._load_from_checkpoint`). For Qwen2.5-VL it matches only the head, warns, and continues from the initial
    model.
    """

    def _prepare_for_training(self, *args: Any, **kwargs: Any) -> Any:
        model = self.model
        # accelerate finds head and embeddings by these methods.
        model.get_input_embeddings = model.get_output_embeddings = lambda: None
        try:
            return super()._prepare_for_training(*args, **kwargs)
        finally:
            del model.get_input_embeddings, model.get_output_embeddings

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        # The shards of a sharded model are saved under module names.
        if self.is_fsdp_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            saved = load_model(resume_from_checkpoint, self.model.dtype)
            self.model.load_state_dict(saved.state_dict())


def load_model(folder: str, dtype: Any) -> Any:
    """Load a model from a folder or hub name with the class that veRL chooses for it."""
    return get_hf_auto_model_class(AutoConfig.from_pretrained(folder)).from_pretrained(folder, dtype=dtype)


class MarkCompleteCheckpoint(TrainerCallback):
    """Marks a checkpoint as complete once every process has written its shard."""

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """See `TrainerCallback`."""
        PartialState().wait_for_everyone()
        if state.is_world_process_zero:
            mark_whole(Path(args.output_dir) / f"checkpoint-{state.global_step}")


class EmitProgress(TrainerCallback):
    """Reports the number of finished steps to the console."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """See `TrainerCallback`."""
        if state.is_world_process_zero:
            emit(Progress(state.global_step, state.max_steps, "steps"))


def trl_config(settings: DpoSettings, folder: Path) -> DPOConfig:
    """Translate the settings into TRL's; everything else keeps TRL's defaults."""
    on_gpu = settings.device == "cuda"
    sharded = settings.processes > 1
    return DPOConfig(
        output_dir=str(folder / CHECKPOINTS),
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.micro_batch_size,
        gradient_accumulation_steps=settings.batch_size // (settings.micro_batch_size * settings.processes),
        beta=settings.beta,
        learning_rate=settings.learning_rate,
        # `pair_trainer` refuses pairs that are too long; nothing is truncated.
        max_length=None,
        seed=settings.seed,
        use_cpu=not on_gpu,
        bf16=on_gpu,
        gradient_checkpointing=on_gpu,
        fsdp="full_shard auto_wrap" if sharded else None,
        fsdp_config={"version": 2} if sharded else None,
        # Dtype of the optimizer's weights; bf16 above sets that of the computation.
        model_init_kwargs={"dtype": "float32", "device_map": None},
        dataloader_num_workers=LOADERS_PER_GPU if on_gpu else 0,
        # The collator needs all columns.
        remove_unused_columns=False,
        logging_steps=1,
        save_steps=settings.save_steps,
        # Keeps the last complete checkpoint while the next one is written.
        save_total_limit=2,
        disable_tqdm=True,
        report_to="none",
    )


def pair_trainer(settings: DpoSettings, model: str, file: Path, folder: Path) -> VisionDpoTrainer:
    """Build the trainer of a model on the pairs of `file`.

    Raises:
        ValueError: a pair is too long; the message names its id.
    """
    processor = load_processor(model, settings.chat_template_kwargs)
    collator = PairCollator(processor, settings.limits)
    pairs = Dataset(pq.read_table(file, columns=training_columns(PAIRS)))
    for row in pairs:
        if (length := collator.length(row)) > settings.max_length:
            raise ValueError(
                f"{file}, id {row['id']}: {length} tokens with its longer response, over max_length="
                f"{settings.max_length}: leave it out, or allow more"
            )
    return VisionDpoTrainer(
        model=model,
        args=trl_config(settings, folder),
        data_collator=collator,
        train_dataset=pairs,
        processing_class=processor.own,
        callbacks=[MarkCompleteCheckpoint(), EmitProgress()],
    )


def train_on_pairs(settings: DpoSettings, model: str, file: Path, folder: Path) -> None:
    """Train from the last complete checkpoint, or from the start, and write the policy.

    Raises:
        ValueError: see `pair_trainer`.
    """
    trainer = pair_trainer(settings, model, file, folder)
    complete = [marker.parent for marker in folder.glob(f"{CHECKPOINTS}/*/{MARKER}")]
    last = max(complete, key=lambda checkpoint: int(checkpoint.name.rpartition("-")[2]), default=None)
    trainer.train(resume_from_checkpoint=None if last is None else str(last))
    weights = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if trainer.is_world_process_zero():
        steps = [entry for entry in trainer.state.log_history if "loss" in entry]
        for step in steps:
            # TRL counts tokens only since the last interruption.
            del step["num_tokens"]
        write_json_lines(folder / "steps.jsonl", steps)
        write_policy(weights, model, folder / POLICY)


def write_policy(weights: dict[str, Any], model: str, folder: Path) -> None:
    """Write a model with these weights; `folder` appears only when it is complete."""
    policy = load_model(model, "auto")
    policy.load_state_dict(weights)
    with replacing(folder) as growing:
        policy.save_pretrained(growing)
        load_processor(model).own.save_pretrained(growing)
        make_readable(growing)
        os.sync()


def main() -> None:
    """Train in the folder given on the command line."""
    # The progress bars of checkpoints would bury the steps in the output.
    disable_progress_bar()
    folder = Path(sys.argv[1])
    parameters = json.loads((folder / PARAMETERS).read_text())
    train_on_pairs(DpoSettings(**parameters["settings"]), parameters["model"], Path(parameters["file"]), folder)


if __name__ == "__main__":
    main()
