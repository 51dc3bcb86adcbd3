"""Run a method in a run folder: make its set from what the policy says, train on it, and so on until it is done.

`mmupt.training.recipe_run` does so where `mmupt.baseline.method` is set. In the folder `stages` of the run are:
    rows.parquet           the training rows that the method uses
    NAME.jsonl             what the policy said in a stage, in the format of an evaluation's responses
    NAME.parquet           the same once it is whole, with what was asked, in the format of what is trained on
    questions/             genixer: the policy's own questions, as `make synthesize` leaves them
    responses.parquet, pairs.parquet   what is trained on, see `mmupt.baselines.training_sets`
    sft/, dpo/             the trainings
    summary.json           how many rows there were, how many were kept, and how many tokens the policy generated
The same command after a kill asks for what is missing in a stage, and goes on with a training where it stopped.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mmupt.baselines.baseline_settings import METHODS, Trainer, read_baseline
from mmupt.baselines.methods import SETS, Work
from mmupt.baselines.policy_client import Policy, rollout_settings
from mmupt.baselines.prompt_rows import draw_rows, read_rows
from mmupt.baselines.training_sets import PAIRS, RESPONSES, write_set
from mmupt.compose import RecipeError
from mmupt.evaluation.response_files import read_whole, write_atomically
from mmupt.evaluation.resumable_file import OtherParametersError
from mmupt.synthesis.prompt_templates import PromptError
from mmupt.synthesis.synthesis_stages import Stages
from mmupt.synthesis.synthesize import SynthesisError
from verl_ext.checkpoints.best import link_or_copy
from verl_ext.datasets.ground_truth import file_list
from verl_ext.datasets.pixel_limits import pixel_limits
from verl_ext.rewards.reward_settings import read_settings

FILES = {"sft": ("responses.parquet", RESPONSES), "dpo": ("pairs.parquet", PAIRS)}
SUMMARY = "summary.json"


def stages_folder(run_folder: Path) -> Path:
    """Where the stages of a run lie."""
    return run_folder / "stages"


def has_begun(run_folder: Path) -> bool:
    """Whether a method has asked or trained anything in this folder."""
    return any(stages_folder(run_folder).glob("**/*.jsonl"))


def run_baseline(config: DictConfig) -> Path:
    """Do what is left to do of a method and return the folder of the policy that it leaves, `<run_folder>/model`.

    Raises:
        RecipeError: a stage or a training cannot be done; what it said is above.
    """
    run_folder = Path(config.mmupt.run_folder)
    target = run_folder / "model"
    if target.is_dir():
        return target
    policy = str(config.actor_rollout_ref.model.path)
    for number, trainer in enumerate(METHODS[config.mmupt.baseline.method]):
        _in_a_process_of_its_own(run_folder, number, policy)
        policy = str(train(trainer, config, policy, stages_folder(run_folder)))
    return _leave(Path(policy), target)


def make_set(config: DictConfig, number: int, model: str) -> Path:
    """Let a model say what is missing for the set of that number of the method, counted from 0, and write it.

    Raises:
        RecipeError: the stages in the folder were made otherwise, a prompt or row cannot be used, or nothing is kept.
    """
    folder = stages_folder(Path(config.mmupt.run_folder))
    settings = read_baseline(config)
    assert settings is not None
    name, schema = FILES[METHODS[settings.method][number]]
    files = file_list(config.data.train_files)
    rows = folder / "rows.parquet"
    try:
        draw_rows(rows, files, config.data.dropped_rows, settings.rows, config.data.seed)
        answers = read_settings(config.reward.reward_kwargs)
        asked = Stages(folder, [rows], limit=None, replace=False)
        work = Work(
            settings=settings,
            answers=answers,
            policy=Policy(settings.method, rollout_settings(config, model), asked, answers.extraction),
            rows=read_rows(rows, config.data.instruction),
            file=rows,
            train_files=files,
            folder=folder,
            instruction=config.data.instruction,
            seed=config.mmupt.seed,
        )
        written = write_set(folder / name, schema, SETS[settings.method][number](work))
    except OtherParametersError as error:
        raise RecipeError(
            f"{error.path} was made with other settings ({', '.join(error.names)}): give this run a folder of its own, "
            "mmupt.run_folder=..., or delete that of the stages"
        ) from error
    except (PromptError, SynthesisError, ValueError) as error:
        raise RecipeError(str(error)) from error
    write_summary(folder, name, len(work.rows), written)
    if not written:
        raise RecipeError(f"{folder / name}: nothing is kept of {len(work.rows)} rows; {folder} has what was said")
    return folder / name


def read_summary(folder: Path) -> dict[str, Any]:
    """What `write_summary` has left in the folder of the stages so far."""
    file = folder / SUMMARY
    return json.loads(file.read_text()) if file.is_file() else {"rows": 0, "sets": {}, "generated_tokens": {"all": 0}}


def write_summary(folder: Path, name: str, rows: int, written: int) -> None:
    """Add to `summary.json` how many rows of a set were written, and count all tokens that were generated so far.

    Tokens are by stage, those of questions and their filters by `questions/responses/NAME`.
    """
    before = read_summary(folder)
    tokens = {
        str(path.relative_to(folder).with_suffix("")): sum(one.tokens or 0 for one in read_whole(path))
        for path in sorted(folder.glob("**/*.jsonl"))
        if path.parent == folder or path.parent.name == "responses"
    }
    summary = {
        "rows": rows,
        "sets": {**before["sets"], name: written},
        "generated_tokens": {**tokens, "all": sum(tokens.values())},
    }
    write_atomically(folder / SUMMARY, f"{json.dumps(summary, indent=2)}\n".encode())


def train(trainer: Trainer, config: DictConfig, model: str, folder: Path) -> Path:
    """Train a model on the set of a trainer, or go on with it, and return the folder of the policy that is left.

    Raises:
        RecipeError: the training cannot be done.
    """
    data = config.data
    limits = pixel_limits(data, training=True)
    settings: dict[str, Any] = {
        **config.mmupt.baseline[trainer],
        # What stands before a question in stic is as long as a response at most.
        "max_length": data.max_prompt_length + 2 * data.max_response_length,
        "min_pixels": limits.get("min_pixels"),
        "max_pixels": limits.get("max_pixels"),
        "seed": config.mmupt.seed,
        "device": config.trainer.device,
        "processes": config.trainer.n_gpus_per_node,
    }
    file = folder / FILES[trainer][0]
    # Not at the top: the processes of stages have no use for trainers.
    from mmupt.baselines.dpo import DpoSettings, train_dpo
    from mmupt.baselines.sft import SftSettings, train_sft

    try:
        if trainer == "sft":
            return train_sft(SftSettings(**settings), model, file, folder / trainer)
        return train_dpo(DpoSettings(**settings), model, file, folder / trainer)
    except ValueError as error:
        raise RecipeError(f"mmupt.baseline.{trainer}: {error}") from error
    except subprocess.CalledProcessError as error:
        raise RecipeError(f"the training in {folder / trainer} ended with status {error.returncode}") from error


def _in_a_process_of_its_own(run_folder: Path, number: int, model: str) -> None:
    # vLLM keeps its memory for as long as a process lives, and a training comes next.
    command = [sys.executable, "-m", "mmupt.baselines.stage_runner", str(run_folder), str(number), model]
    try:
        subprocess.run(command, check=True)
    except subprocess.CalledProcessError as error:
        raise RecipeError(f"the stages in {stages_folder(run_folder)} ended with status {error.returncode}") from error


def _leave(policy: Path, target: Path) -> Path:
    """Put a policy where a run leaves it, as hard links where there are such, so that its name never shows a part."""
    temporary = target.with_name(f"{target.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.copytree(policy, temporary, copy_function=link_or_copy)
    os.rename(temporary, target)
    return target


def main() -> None:
    """Make the set that the command line names: a run folder with its `config.yaml`, a number, and a model."""
    run_folder, number, model = sys.argv[1:]
    config: Any = OmegaConf.load(Path(run_folder) / "config.yaml")
    try:
        print(make_set(config, int(number), model), flush=True)
    except (RecipeError, BlockingIOError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
