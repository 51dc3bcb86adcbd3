"""A training process of `train_dpo`: TRL's `DPOTrainer` on a file of pairs.

    python -m mmupt.baselines.dpo_process FOLDER

Reads what to train from `FOLDER/parameters.json`, which `mmupt.baselines.training_folder` writes.
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

# Processes per GPU that decode and scale images; on the CPU they would compete with the model.
LOADERS_PER_GPU = 4


class VisionDpoTrainer(DPOTrainer):
    """TRL's trainer with two corrections.

    A model sharded among processes: accelerate 1.15.0 makes the head a unit of FSDP2 of its own
    (`fsdp2_prepare_model`). TRL 1.16.0 reads the weight of the head without calling the head (`add_fused_lm_head`),
    which keeps FSDP2 from summing its gradient over processes: each would update its part by its own pairs alone. Here
    the head, and the embeddings that may be the same tensor, stay in the unit of the whole model, whose forward TRL
    does call.

    A training that is resumed: transformers 5.9.0 writes the weights of a checkpoint under the names of the hub, and
    reads them as if they had those of its modules (`Trainer._load_from_checkpoint`). Of Qwen2.5-VL it finds but the
    head, warns, and goes on from the model that the training had started from.
    """

    def _prepare_for_training(self, *args: Any, **kwargs: Any) -> Any:
        model = self.model
        # What accelerate asks for to find them.
        model.get_input_embeddings = model.get_output_embeddings = lambda: None
        try:
            return super()._prepare_for_training(*args, **kwargs)
        finally:
            del model.get_input_embeddings, model.get_output_embeddings

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        # Parts of a sharded model have the names of its modules.
        if self.is_fsdp_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            saved = load_model(resume_from_checkpoint, self.model.dtype)
            self.model.load_state_dict(saved.state_dict())


def load_model(folder: str, dtype: Any) -> Any:
    """The model of a folder or hub name, by the class that veRL takes for it."""
    return get_hf_auto_model_class(AutoConfig.from_pretrained(folder)).from_pretrained(folder, dtype=dtype)


class MarkCompleteCheckpoint(TrainerCallback):
    """Marks a checkpoint as complete once every process has written its part."""

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """As transformers documents it."""
        PartialState().wait_for_everyone()
        if state.is_world_process_zero:
            mark_whole(Path(args.output_dir) / f"checkpoint-{state.global_step}")


class EmitProgress(TrainerCallback):
    """Tells the console how many steps are done."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """As transformers documents it."""
        if state.is_world_process_zero:
            emit(Progress(state.global_step, state.max_steps, "steps"))


def trl_config(settings: DpoSettings, folder: Path) -> DPOConfig:
    """The settings in TRL's terms; everything else keeps TRL's defaults."""
    on_gpu = settings.device == "cuda"
    sharded = settings.processes > 1
    return DPOConfig(
        output_dir=str(folder / CHECKPOINTS),
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.micro_batch_size,
        gradient_accumulation_steps=settings.accumulated,
        beta=settings.beta,
        learning_rate=settings.learning_rate,
        # Pairs that are too long are refused below; none is truncated.
        max_length=None,
        seed=settings.seed,
        use_cpu=not on_gpu,
        bf16=on_gpu,
        gradient_checkpointing=on_gpu,
        fsdp="full_shard auto_wrap" if sharded else None,
        fsdp_config={"version": 2} if sharded else None,
        # The optimizer's own; the computation is in bf16 where that is set.
        model_init_kwargs={"dtype": "float32", "device_map": None},
        dataloader_num_workers=LOADERS_PER_GPU if on_gpu else 0,
        # The collator needs all columns.
        remove_unused_columns=False,
        logging_steps=1,
        save_steps=settings.save_steps,
        # Keeps the last complete one while the next is written.
        save_total_limit=2,
        disable_tqdm=True,
        report_to="none",
    )


def pair_trainer(settings: DpoSettings, model: str, file: Path, folder: Path) -> VisionDpoTrainer:
    """The trainer of a model on the pairs of `file`.

    Raises:
        ValueError: a pair is too long; names its id.
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
        ValueError: as `pair_trainer`.
    """
    trainer = pair_trainer(settings, model, file, folder)
    whole = {int(one.parent.name.rpartition("-")[2]): one.parent for one in folder.glob(f"{CHECKPOINTS}/*/{MARKER}")}
    trainer.train(resume_from_checkpoint=str(whole[max(whole)]) if whole else None)
    weights = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if trainer.is_world_process_zero():
        steps = [entry for entry in trainer.state.log_history if "loss" in entry]
        for step in steps:
            # TRL counts them from the last interruption only.
            del step["num_tokens"]
        write_json_lines(folder / "steps.jsonl", steps)
        write_policy(weights, model, folder / POLICY)


def write_policy(weights: dict[str, Any], model: str, folder: Path) -> None:
    """Write a model with these weights; `folder` appears only once it is complete."""
    policy = load_model(model, "auto")
    policy.load_state_dict(weights)
    with replacing(folder) as growing:
        policy.save_pretrained(growing)
        load_processor(model).own.save_pretrained(growing)
        make_readable(growing)
        os.sync()


def main() -> None:
    """Train in the folder of the command line."""
    # A progress bar per checkpoint would hide the steps.
    disable_progress_bar()
    folder = Path(sys.argv[1])
    written = json.loads((folder / PARAMETERS).read_text())
    train_on_pairs(DpoSettings(**written["settings"]), written["model"], Path(written["file"]), folder)


if __name__ == "__main__":
    main()
