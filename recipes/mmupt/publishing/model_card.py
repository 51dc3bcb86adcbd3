"""The card of a trained policy: base model, training, scores with errors, and the limits of these scores.

The metadata follow the hub's format (`huggingface_hub.ModelCardData`), with the scores as `model-index`.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData, metadata_load, try_to_load_from_cache
from omegaconf import DictConfig, OmegaConf

from mmupt.publishing import is_path, public_name
from mmupt.publishing.card_text import fenced, without_folders
from mmupt.publishing.row_sources import RowSource, render, row_sources, warnings
from mmupt.reports.tables import code, escaped, markdown_table, plus_minus
from mmupt.runtime.export import MARKER
from mmupt.runtime.start_record import read_starts
from mmupt.training.adapters import lora_rank
from mmupt.training.resume_rules import flatten
from mmupt.training.run_report import TEST_TIME_TRAINING, UNITS, StoredChange, render_table, stored_changes
from verl_ext.files import file_list

# Settings of the method on the card of a GRPO run; blocks are listed key by key, and null settings are left out.
SETTINGS = (
    "reward.reward_manager.name",
    "reward.reward_kwargs.vote",
    "reward.reward_kwargs.answers.extraction",
    "reward.reward_kwargs.answers.rule",
    "actor_rollout_ref.rollout.n",
    "actor_rollout_ref.rollout.temperature",
    "actor_rollout_ref.rollout.top_p",
    "algorithm.adv_estimator",
    "actor_rollout_ref.actor.use_kl_loss",
    "actor_rollout_ref.actor.kl_loss_coef",
    "actor_rollout_ref.actor.clip_ratio_low",
    "actor_rollout_ref.actor.clip_ratio_high",
    "actor_rollout_ref.actor.loss_agg_mode",
    "actor_rollout_ref.actor.ppo_mini_batch_size",
    "actor_rollout_ref.actor.optim.lr",
    "actor_rollout_ref.actor.optim.weight_decay",
    "actor_rollout_ref.actor.fsdp_config.mixed_precision",
    "trainer.v1.trainer_mode",
)
# Settings of the method on the card of a baseline that is not GRPO.
BASELINE_SETTINGS = ("mmupt.baseline",)
SETTINGS_OF_ALL = (
    "mmupt.seed",
    "data.train_batch_size",
    "data.instruction",
    "data.min_pixels",
    "data.max_pixels",
    "data.max_prompt_length",
    "data.max_response_length",
    "actor_rollout_ref.model.lora_rank",
    "actor_rollout_ref.model.lora_alpha",
    "trainer.total_epochs",
    "trainer.total_training_steps",
)
LICENCE_FIELDS = ("license", "license_name", "license_link")


def model_card(run_folder: Path, config: DictConfig, name: str, *, adapter: bool) -> ModelCard:
    """Return the card of the model of a run, or only of its adapter, for a repository of this name.

    Raises:
        ValueError: a data file of the run can no longer be read.
    """
    report_file = run_folder / "report.json"
    report = json.loads(report_file.read_text()) if report_file.is_file() else None
    trained_on = row_sources(map(Path, file_list(config.data.train_files)))
    tested_on = row_sources(map(Path, file_list(config.mmupt.evaluation_files)))
    base = str(config.actor_rollout_ref.model.path)
    has_images = "vision_config" in json.loads((run_folder / "model" / "config.json").read_text())
    title = name.rpartition("/")[2]
    task = "image-text-to-text" if has_images else "text-generation"
    metadata = ModelCardData(
        base_model=None if is_path(base) else base,
        base_model_relation=None if is_path(base) else "adapter" if adapter else "finetune",
        datasets=sorted({source.repository for source in trained_on if source.repository}) or None,
        library_name="peft" if adapter else "transformers",
        pipeline_tag=task,
        tags=["mmupt", "verl", *(["lora"] if lora_rank(config) else [])],
        model_name=title,
        eval_results=[*_results(task, stored_changes(report), tested_on)] or None if report else None,
        **_licence_of(base),
    )
    parts = [
        f"# {escaped(title)}",
        _summary(config, base, adapter=adapter),
        _usage(config, name, base, adapter=adapter, has_images=has_images),
        _training(run_folder, config, base, trained_on),
        _evaluation(run_folder, config, report, tested_on),
        _limits(config, report, trained_on),
        _reproduction(run_folder),
    ]
    return ModelCard(f"---\n{metadata.to_yaml()}\n---\n\n" + "\n\n".join(parts) + "\n")


def _summary(config: DictConfig, base: str, *, adapter: bool) -> str:
    what = "A LoRA adapter for" if adapter else "A fine-tuned version of"
    if config.data.supervised:
        how = "with the ground truth of the training questions"
    else:
        how = "without labels: no ground truth of a training question was read"
    method = config.mmupt.baseline.method or config.reward.reward_manager.name
    return f"{what} {code(public_name(base))}, trained by {code(method)} {how}."


def _usage(config: DictConfig, name: str, base: str, *, adapter: bool, has_images: bool) -> str:
    model_class = "AutoModelForImageTextToText" if has_images else "AutoModelForCausalLM"
    reader = "AutoProcessor" if has_images else "AutoTokenizer"
    lines = [f"from transformers import {model_class}, {reader}", ""]
    if adapter:
        lines = [
            "from peft import PeftModel",
            *lines,
            f"model = {model_class}.from_pretrained({json.dumps(public_name(base))})",
            f"model = PeftModel.from_pretrained(model, {json.dumps(name)})",
        ]
    else:
        lines.append(f"model = {model_class}.from_pretrained({json.dumps(name)})")
    lines.append(f"{reader.removeprefix('Auto').lower()} = {reader}.from_pretrained({json.dumps(name)})")
    parts = ["## Use", fenced("\n".join(lines), "python")]
    if config.data.instruction:
        parts.append(f"In training and evaluation every question was followed by {code(config.data.instruction)}.")
    return "\n\n".join(parts)


def _training(run_folder: Path, config: DictConfig, base: str, sources: Sequence[RowSource]) -> str:
    marker = run_folder / "model" / MARKER
    is_baseline = config.mmupt.baseline.method is not None
    keys = [*(BASELINE_SETTINGS if is_baseline else SETTINGS), *SETTINGS_OF_ALL]
    rows = [
        ("setting", "value"),
        ("base model", public_name(base)),
        *(setting for key in keys for setting in _values(config, key)),
    ]
    if marker.is_file() and marker.read_text().isdigit():
        rows.append(("training steps of this policy", marker.read_text()))
    return "\n\n".join(
        [
            "## Training",
            "Questions, with the licences of their sources:",
            render(sources),
            "Settings, by their keys in the configuration of the run:",
            markdown_table(rows),
        ]
    )


def _values(config: DictConfig, key: str) -> Iterator[tuple[str, str]]:
    """Yield the settings below a key, without null ones."""
    block: Any = OmegaConf.select(config, key)
    for name, value in flatten(OmegaConf.to_object(block) if OmegaConf.is_config(block) else block, key).items():
        if value is not None:
            yield name, public_name(str(value)) if str(value).startswith(("/", "~")) else str(value)


def _evaluation(
    run_folder: Path, config: DictConfig, report: Mapping[str, Any] | None, sources: Sequence[RowSource]
) -> str:
    if report is None:
        return "## Evaluation\n\nThe run was not evaluated: it has no report."
    times = "once" if report["samples"] == 1 else f"{report['samples']} times"
    parts = [
        "## Evaluation",
        f"{report['questions']} questions, each answered greedily and {times} by sampling, before and after training. "
        "± is one standard error over questions; differences are paired by question.",
        render_table(stored_changes(report)),
        render(sources),
    ]
    if stop := report.get("collapse"):
        parts.append(f"**{escaped(stop['message'])}**")
    if (run_folder / "report.png").is_file():
        parts.append("![Accuracy, majority ratio, label accuracy and response length over the run](report.png)")
    return "\n\n".join(parts)


def _limits(config: DictConfig, report: Mapping[str, Any] | None, trained_on: Sequence[RowSource]) -> str:
    parts = ["## What this does not show"]
    if report:
        parts.append(
            f"- The scores are of one run with one seed ({config.mmupt.seed}). The standard errors tell how far they "
            "would move with other questions, not with another seed.\n"
            "- Both models were evaluated with the training prompt. A base model that prefers another form of answer "
            "may score lower for that alone."
        )
        if report.get("test_time_training"):
            parts.append(TEST_TIME_TRAINING)
    else:
        parts.append("- Whether training has helped: the run has no evaluation.")
    if config.mmupt.leakage.allowed_pairs is None:
        parts.append("- Whether training questions are among the test questions: this was not checked.")
    parts += [f"- Whether you may use it: {warning}." for warning in dict.fromkeys(warnings(trained_on))]
    if config.mmupt.report_note:
        parts.append(str(config.mmupt.report_note))
    return "\n\n".join(parts)


def _reproduction(run_folder: Path) -> str:
    starts = read_starts(run_folder)
    if not starts:
        return "## Reproduction\n\nThe command of the run was not recorded."
    commands = "\n".join(dict.fromkeys(without_folders(start.command) for start in starts))
    versions = ", ".join(f"{name} {version}" for name, version in starts[-1].versions.items())
    return f"## Reproduction\n\n{fenced(commands, 'bash')}\n\nVersions: {escaped(versions)}."


def _results(task: str, changes: Mapping[str, StoredChange], sources: Sequence[RowSource]) -> Iterator[EvalResult]:
    """Yield the scores after training in percent with standard errors.

    Leaves out scores in other units, and scores over several data sets, for which the hub has no entry.
    """
    names = list(dict.fromkeys(source.data_set for source in sources))
    for name, change in changes.items():
        measure, _, benchmark = name.partition(", ")
        data_set = benchmark or names[0] if len(names) == 1 or benchmark else None
        if name in UNITS or data_set is None:
            continue
        parts = [source for source in sources if source.data_set == data_set]
        yield EvalResult(
            task_type=task,
            dataset_type=next((part.repository for part in parts if part.repository), data_set),
            dataset_name=data_set,
            dataset_revision=parts[0].revision if len(parts) == 1 else None,
            metric_type="pass@k" if measure.startswith("pass@") else "accuracy",
            metric_name=f"{measure}, %",
            metric_value=plus_minus(change.after, 1),
        )


def _licence_of(model: str) -> dict[str, Any]:
    """Return the licence fields on the card of a model on this machine; empty if it has no card."""
    card: Any = Path(model, "README.md") if is_path(model) else try_to_load_from_cache(model, "README.md")
    if not isinstance(card, str | Path) or not Path(card).is_file():
        return {}
    metadata = metadata_load(card) or {}
    return {name: metadata[name] for name in LICENCE_FIELDS if name in metadata}
