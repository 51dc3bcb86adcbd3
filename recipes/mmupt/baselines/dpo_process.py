"""The process that trains by DPO, or one of several of them: TRL's `DPOTrainer` on the pairs of `train_dpo`.

    python -m mmupt.baselines.dpo_process FOLDER

What is trained is in `FOLDER/parameters.json`, which `mmupt.baselines.dpo` writes.
"""

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from accelerate import PartialState
from datasets import Dataset
from transformers import AutoModelForImageTextToText, AutoProcessor, TrainerCallback
from transformers.utils.logging import disable_progress_bar
from trl import DPOConfig, DPOTrainer

from mmupt.baselines.dpo import CHECKPOINTS, PARAMETERS, DpoSettings
from mmupt.baselines.preference_pairs import COLUMNS, PairCollator
from mmupt.runtime.export import make_readable
from verl_ext.checkpoints import MARKER, mark_whole

# Processes that decode and scale images while a GPU computes; on the CPU they would compete with the model.
LOADERS_A_GPU = 4


class Trainer(DPOTrainer):
    """TRL's trainer, put right in two places.

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
            saved = AutoModelForImageTextToText.from_pretrained(resume_from_checkpoint, dtype=self.model.dtype)
            self.model.load_state_dict(saved.state_dict())


class MarkWhole(TrainerCallback):
    """Marks a checkpoint once every process has written its part."""

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """As transformers documents it."""
        PartialState().wait_for_everyone()
        if state.is_world_process_zero:
            mark_whole(Path(args.output_dir) / f"checkpoint-{state.global_step}")


def arguments(settings: DpoSettings, folder: Path) -> DPOConfig:
    """The settings as TRL takes them; all else is as TRL has it."""
    on_gpu = settings.device == "cuda"
    sharded = settings.processes > 1
    return DPOConfig(
        output_dir=str(folder / CHECKPOINTS),
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.micro_batch_size,
        gradient_accumulation_steps=settings.accumulated,
        beta=settings.beta,
        learning_rate=settings.learning_rate,
        # Too long ones are refused below, and none is cut off.
        max_length=None,
        seed=settings.seed,
        use_cpu=not on_gpu,
        bf16=on_gpu,
        gradient_checkpointing=on_gpu,
        fsdp="full_shard auto_wrap" if sharded else None,
        fsdp_config={"version": 2} if sharded else None,
        # The optimizer's own; the computation is in bf16 where that is set.
        model_init_kwargs={"dtype": "float32", "device_map": None},
        dataloader_num_workers=LOADERS_A_GPU if on_gpu else 0,
        # The collator needs them all.
        remove_unused_columns=False,
        logging_steps=1,
        save_steps=settings.save_steps,
        # The last whole one stays while the next is written.
        save_total_limit=2,
        disable_tqdm=True,
        report_to="none",
    )


def train(settings: DpoSettings, model: str, file: Path, folder: Path) -> None:
    """Train from the last whole checkpoint, or from the beginning, and write the policy.

    ValueError for a pair that is too long, with its id.
    """
    processor = AutoProcessor.from_pretrained(model)
    collator = PairCollator(processor, settings.min_pixels, settings.max_pixels)
    pairs = Dataset(pq.read_table(file, columns=list(COLUMNS)))
    for row in pairs:
        if (length := collator.length(row)) > settings.max_length:
            raise ValueError(
                f"{file}, id {row['id']}: {length} tokens with its longer response, over max_length="
                f"{settings.max_length}: leave it out, or allow more"
            )
    trainer = Trainer(
        model=model,
        args=arguments(settings, folder),
        data_collator=collator,
        train_dataset=pairs,
        processing_class=processor,
        callbacks=[MarkWhole()],
    )
    whole = {int(one.parent.name.rpartition("-")[2]): one.parent for one in folder.glob(f"{CHECKPOINTS}/*/{MARKER}")}
    trainer.train(resume_from_checkpoint=str(whole[max(whole)]) if whole else None)
    weights = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if trainer.is_world_process_zero():
        steps = [entry for entry in trainer.state.log_history if "loss" in entry]
        for step in steps:
            # TRL counts from the last interruption on.
            del step["num_tokens"]
        (folder / "steps.jsonl").write_text("".join(f"{json.dumps(step)}\n" for step in steps))
        write_policy(weights, model, folder / "model")


def write_policy(weights: dict[str, Any], model: str, folder: Path) -> None:
    """Write a policy that differs from a model by these weights alone; `folder` is there only once it is whole."""
    policy = AutoModelForImageTextToText.from_pretrained(model, dtype="auto")
    policy.load_state_dict(weights)
    growing = folder.with_suffix(".part")
    shutil.rmtree(growing, ignore_errors=True)
    policy.save_pretrained(growing)
    AutoProcessor.from_pretrained(model).save_pretrained(growing)
    make_readable(growing)
    os.sync()
    growing.rename(folder)


def main() -> None:
    """Train what the folder of the command line says."""
    # One for each checkpoint would hide the steps.
    disable_progress_bar()
    folder = Path(sys.argv[1])
    written = json.loads((folder / PARAMETERS).read_text())
    train(DpoSettings(**written["settings"]), written["model"], Path(written["file"]), folder)


if __name__ == "__main__":
    main()
