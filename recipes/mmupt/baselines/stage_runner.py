"""Runs a method in a run folder: builds each of its training sets from the policy's responses and trains on it.

`mmupt train` does this if `mmupt.baseline.method` is set. The subfolder `stages` of the run holds:
    rows.parquet           the training rows that the method uses
    STAGE.jsonl            the responses of a stage, in the format of an evaluation's responses
    STAGE.parquet          the same responses with their prompts as a training set, once the stage is complete
    questions/             genixer: the policy's own questions, in the layout of `make synthesize`
    responses.parquet, pairs.parquet   the training sets, see `mmupt.baselines.training_sets`
    sft/, dpo/             the training folders
    summary.json           number of rows, of examples in each set, and of tokens that the policy generated
After a kill, the same command generates the missing responses of a stage and resumes the training.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from mmupt.baseline_settings import BASELINES, TrainerName, read_baseline
from mmupt.baselines.policy_client import Policy, rollout_settings
from mmupt.baselines.prompt_rows import draw_rows, read_prompt_rows
from mmupt.baselines.stage_context import StageContext
from mmupt.baselines.training_sets import PAIRS, RESPONSES, write_set
from mmupt.compose import RecipeError
from mmupt.evaluation.response_cache import ResponseCache
from mmupt.evaluation.response_files import read_whole
from mmupt.evaluation.resumable_file import OtherParametersError
from mmupt.prompt_templates import PromptError
from mmupt.synthesis.run_synthesis import SynthesisError
from verl_ext.checkpoints.best import link_or_copy
from verl_ext.datasets.pixel_limits import pixel_limits
from verl_ext.files import file_list, replacing, write_json
from verl_ext.rewards.reward_settings import read_settings

if TYPE_CHECKING:
    from mmupt.baselines.dpo import DpoSettings
    from mmupt.baselines.sft import SftSettings

FILES = {"sft": ("responses.parquet", RESPONSES), "dpo": ("pairs.parquet", PAIRS)}
SUMMARY = "summary.json"


def stages_folder(run_folder: Path) -> Path:
    """The subfolder of a run that holds its stages."""
    return run_folder / "stages"


def has_begun(run_folder: Path) -> bool:
    """Whether a method has generated or trained anything in this run folder."""
    return any(stages_folder(run_folder).glob("**/*.jsonl"))


def run_baseline(config: DictConfig) -> Path:
    """Run the missing stages of a method and return the folder of its policy, `<run_folder>/model`.

    Raises:
        RecipeError: a stage or a training failed; its output says why.
    """
    run_folder = Path(config.mmupt.run_folder)
    target = run_folder / "model"
    if target.is_dir():
        return target
    stages = BASELINES[config.mmupt.baseline.method].stages
    for stage in stages:
        # Refuse bad settings before any response is generated.
        training_settings(stage.trainer, config)
    policy = str(config.actor_rollout_ref.model.path)
    for number, stage in enumerate(stages):
        _make_set_in_process(run_folder, number, policy)
        policy = str(train_policy(stage.trainer, config, policy, stages_folder(run_folder)))
    # Hard links where the file system supports them.
    with replacing(target) as temporary:
        shutil.copytree(policy, temporary, copy_function=link_or_copy)
    return target


def make_set(config: DictConfig, number: int, model: str) -> Path:
    """Generate the missing responses for training set `number` of the method, counted from 0, and write the set.

    Raises:
        RecipeError: the folder holds stages with other settings, a prompt or row cannot be used, or the set is empty.
    """
    folder = stages_folder(Path(config.mmupt.run_folder))
    settings = read_baseline(config)
    assert settings is not None
    stage = BASELINES[settings.method].stages[number]
    name, schema = FILES[stage.trainer]
    files = file_list(config.data.train_files)
    rows = folder / "rows.parquet"
    try:
        draw_rows(rows, files, config.data.dropped_rows, settings.rows, config.data.seed)
        answers = read_settings(config.reward.reward_kwargs)
        cache = ResponseCache(folder, [rows], limit=None, replace=False)
        context = StageContext(
            settings=settings,
            answers=answers,
            policy=Policy(settings.method, rollout_settings(config, model), cache, answers.extraction),
            rows=read_prompt_rows(rows, config.data.instruction),
            file=rows,
            train_files=files,
            folder=folder,
            instruction=config.data.instruction,
            seed=config.mmupt.seed,
        )
        written = write_set(folder / name, schema, stage.examples(context))
    except OtherParametersError as error:
        raise RecipeError(
            f"{error.path} was made with other settings ({', '.join(error.names)}): set another "
            "mmupt.run_folder=..., or delete the folder of the stages"
        ) from error
    except (PromptError, SynthesisError, ValueError) as error:
        raise RecipeError(str(error)) from error
    write_summary(folder, name, len(context.rows), written)
    if not written:
        raise RecipeError(f"{folder / name}: none of {len(context.rows)} rows was kept; {folder} has all responses")
    return folder / name


def read_summary(folder: Path) -> dict[str, Any]:
    """Read `summary.json`; all counts are 0 before the first set is written."""
    file = folder / SUMMARY
    return json.loads(file.read_text()) if file.is_file() else {"rows": 0, "sets": {}, "generated_tokens": {"all": 0}}


def write_summary(folder: Path, name: str, rows: int, written: int) -> None:
    """Update `summary.json` with the size of a training set and the tokens generated so far.

    Tokens are counted per stage; the stages of a synthesis are named `questions/responses/STAGE`.
    """
    before = read_summary(folder)
    tokens = {
        str(path.relative_to(folder).with_suffix("")): sum(response.tokens or 0 for response in read_whole(path))
        for path in sorted(folder.glob("**/*.jsonl"))
        if path.parent == folder or path.parent.name == "responses"
    }
    summary = {
        "rows": rows,
        "sets": {**before["sets"], name: written},
        "generated_tokens": {**tokens, "all": sum(tokens.values())},
    }
    write_json(folder / SUMMARY, summary)


def train_policy(trainer: TrainerName, config: DictConfig, model: str, folder: Path) -> Path:
    """Train a model on the training set for `trainer`, resuming if possible, and return the folder of the policy.

    Raises:
        RecipeError: a setting is invalid, or the training failed.
    """
    # Imported lazily: the processes that make training sets need no trainer.
    from mmupt.baselines.dpo import train_dpo
    from mmupt.baselines.sft import SftSettings, train_sft

    settings = training_settings(trainer, config)
    file = folder / FILES[trainer][0]
    try:
        if isinstance(settings, SftSettings):
            return train_sft(settings, model, file, folder / trainer)
        return train_dpo(settings, model, file, folder / trainer)
    except ValueError as error:
        raise RecipeError(f"mmupt.baseline.{trainer}: {error}") from error
    except subprocess.CalledProcessError as error:
        raise RecipeError(f"the training in {folder / trainer} ended with status {error.returncode}") from error


def training_settings(trainer: TrainerName, config: DictConfig) -> "SftSettings | DpoSettings":
    """Build the SFT or DPO settings of a recipe; RecipeError for an invalid value."""
    from mmupt.baselines.dpo import DpoSettings
    from mmupt.baselines.sft import SftSettings

    data = config.data
    limits = pixel_limits(data, training=True)
    settings: dict[str, Any] = {
        **config.mmupt.baseline[trainer],
        # stic adds a description, at most as long as a response, to the prompt.
        "max_length": data.max_prompt_length + 2 * data.max_response_length,
        "min_pixels": limits.get("min_pixels"),
        "max_pixels": limits.get("max_pixels"),
        "seed": config.mmupt.seed,
        "device": config.trainer.device,
        "processes": config.trainer.n_gpus_per_node,
        "chat_template_kwargs": OmegaConf.to_container(data.apply_chat_template_kwargs, resolve=True),
    }
    try:
        return SftSettings(**settings) if trainer == "sft" else DpoSettings(**settings)
    except ValueError as error:
        raise RecipeError(f"mmupt.baseline.{trainer}: {error}") from error


def _make_set_in_process(run_folder: Path, number: int, model: str) -> None:
    # vLLM frees its memory only when its process ends, and the training needs that memory.
    command = [sys.executable, "-m", "mmupt.baselines.stage_runner", str(run_folder), str(number), model]
    try:
        subprocess.run(command, check=True)
    except subprocess.CalledProcessError as error:
        raise RecipeError(f"the stages in {stages_folder(run_folder)} ended with status {error.returncode}") from error


def main() -> None:
    """Write a training set; the arguments are a run folder with a `config.yaml`, the number of the set and a model."""
    run_folder, number, model = sys.argv[1:]
    config: Any = OmegaConf.load(Path(run_folder) / "config.yaml")
    try:
        print(make_set(config, int(number), model), flush=True)
    except (RecipeError, BlockingIOError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
