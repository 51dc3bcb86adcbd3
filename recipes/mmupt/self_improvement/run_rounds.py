"""Runs rounds of self-improvement: the policy writes questions about images and is trained on them by majority vote.

    mmupt self-improve mmupt_tiny_self_improve --rounds 3 [key=value ...]

Each round runs `mmupt synthesize` with the policy of the round before, then `mmupt train` on the synthesized questions,
with its evaluation and report; the overrides are those of the recipe. `mmupt.self_improve` in a recipe sets the images
and how questions are synthesized. With `mmupt.self_improve.writer_steps`, a copy of the policy is first trained to
write the questions of the round; the policy itself is trained only on the questions.

After a kill, the same command resumes in the interrupted phase. If the majority ratio rises while held-out accuracy or
pass@k falls beyond noise, the rounds stop and the best round is kept; see `mmupt.stop_on_collapse`.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mmupt.compose import RecipeError, as_override, load_recipe
from mmupt.console import Head, Phase, emit, log_to, show_result, shown_path
from mmupt.evaluation.generation_settings import input_settings
from mmupt.evaluation.response_files import copy_responses
from mmupt.runtime.run_lock import RUN_FOLDER_VARIABLE, end_processes, exclusive_run
from mmupt.self_improvement.rounds import best_round, find_collapse_of, read_round, round_folder, write_rounds
from mmupt.synthesis.run_synthesis import SynthesisError, load_synthesis_config, write_requests
from mmupt.training.recipe_run import prepare_data_sets
from mmupt.training.resume_rules import why_another_run
from verl_ext.collapse import read_rule
from verl_ext.files import file_list, write_atomically

# Written when a round finishes: the path of its policy, relative to the folder of all rounds if inside it.
POLICY = "policy.txt"
# Composed recipe of all rounds.
RECIPE = "recipe.yaml"


def self_improve(recipe: str, rounds: int, folder: Path, overrides: Sequence[str]) -> None:
    """Run the missing rounds.

    Raises:
        RecipeError: the recipe cannot be used; raised before anything starts.
        BlockingIOError: another process is using the folder.
        subprocess.CalledProcessError: a phase failed; its output says why.
    """
    config, _ = load_recipe(recipe, overrides)
    _check(config, recipe, overrides)
    folder = folder.absolute()
    with exclusive_run(folder, folder / "rounds.json"):
        for number in range(1, rounds + 1):
            for phase in ("writer", "synthesis", "run"):
                # We hold the lock, so any process still running there was left by a killed launcher.
                end_processes(round_folder(folder, number) / phase)
        log_to(folder / "logs" / "rounds.log")
        _check_continued(config, folder)
        emit(_head(config, rounds, folder))
        prepare_data_sets(config)
        policy, done = str(config.actor_rollout_ref.model.path), []
        rule = read_rule(config.mmupt.stop_on_collapse)
        for number in range(1, rounds + 1):
            policy = make_round(config, recipe, number, folder, policy, overrides)
            done.append(read_round(folder, number))
            stopped = find_collapse_of(done, rule) if rule else None
            show_result(f"\n{write_rounds(folder, done, stopped)}\n")
            if stopped:
                break
        best = best_round(done)
        kept = read_policy(folder, best) if best else config.actor_rollout_ref.model.path
        show_result(f"The best policy is in {kept}")


def make_round(
    config: DictConfig, recipe: str, number: int, folder: Path, policy: str, overrides: Sequence[str]
) -> str:
    """Run the missing phases of a round that starts from `policy`, and return the path of the round's policy."""
    target = round_folder(folder, number)
    if (target / POLICY).is_file():
        return read_policy(folder, number)
    writer = policy
    if config.mmupt.self_improve.writer_steps:
        emit(Phase(f"round {number}: train the writer of questions"))
        writer = _train_writer(config, recipe, number, target, policy, overrides)
    emit(Phase(f"round {number}: write questions"))
    _run("synthesize", _synthesis(config, number, writer, target / "synthesis"), target / "synthesis")
    files = [str(target / "synthesis" / "train.parquet")]
    if config.data.generated_share is not None:
        files += file_list(config.data.train_files)
    run = target / "run"
    if number > 1:
        _take_evaluation(round_folder(folder, number - 1) / "run" / "evaluation", run / "evaluation")
    trained = [
        *overrides,
        as_override("data.train_files", files),
        as_override("actor_rollout_ref.model.path", policy),
        as_override("mmupt.run_folder", str(run)),
    ]
    emit(Phase(f"round {number}: train on them"))
    _run("train", [recipe, *trained], run)
    # A run that collapsed immediately keeps the policy it started from.
    left = str(run / "model") if (run / "model" / "config.json").is_file() else policy
    write_atomically(target / POLICY, str(Path(left).relative_to(folder)) if folder in Path(left).parents else left)
    return left


def read_policy(folder: Path, number: int) -> str:
    """Path or hub name of the policy of a finished round, even if the folder has been moved."""
    policy = (round_folder(folder, number) / POLICY).read_text()
    return str(folder / policy) if (folder / policy).is_dir() else policy


def _synthesis(config: DictConfig, number: int, model: str, output: Path) -> list[str]:
    """Overrides of `mmupt synthesize` with which a model writes the questions of a round."""
    settings = config.mmupt.self_improve
    # The policy sees images and prompts as in training unless mmupt.self_improve.synthesis overrides it.
    written = [as_override(name, value) for name, value in input_settings(config, training=True).items()]
    if settings.writer_steps:
        # The writer's training rows have no system prompt, and its requests must match them.
        written.append("system_prompt=null")
    written += [*settings.synthesis, as_override("model", model), as_override("data", file_list(settings.images))]
    written += [as_override("output", str(output))]
    return [*written, f"round={number}", f"seed={config.mmupt.seed}", "name=train"]


def _train_writer(
    config: DictConfig, recipe: str, number: int, target: Path, policy: str, overrides: Sequence[str]
) -> str:
    """Train a copy of the policy to write the questions of a round, and return its path."""
    run = target / "writer"
    asked = _synthesis_config(_synthesis(config, number, policy, target / "synthesis"))
    try:
        requests = write_requests(asked, target / "requests")
    except SynthesisError as error:
        raise RecipeError(f"mmupt.self_improve: {error}") from error
    trained = [
        *_of_writer(config, overrides),
        as_override("data.train_files", [str(requests)]),
        as_override("actor_rollout_ref.model.path", policy),
        as_override("mmupt.run_folder", str(run)),
    ]
    _run("train", [recipe, *trained], run)
    return str(run / "model")


def _synthesis_config(overrides: Sequence[str]) -> DictConfig:
    try:
        return load_synthesis_config(overrides)
    except SynthesisError as error:
        raise RecipeError(f"mmupt.self_improve.synthesis: {error}") from error


def _of_writer(config: DictConfig, overrides: Sequence[str]) -> list[str]:
    """Overrides of the recipe for training the writer: its own reward, and nothing that needs answers."""
    return [
        # The writer's reward replaces the method of the policy.
        *(one for one in overrides if not one.lstrip("+").startswith("method=")),
        "reward.reward_manager.name=question_writer",
        as_override("reward.reward_kwargs.solver.instruction", config.data.instruction),
        "data.instruction=null",
        "data.generated_share=null",
        as_override("trainer.total_training_steps", config.mmupt.self_improve.writer_steps),
        "trainer.val_before_train=False",
        "trainer.test_freq=-1",
        "mmupt.evaluation_files=null",
        "mmupt.stop_on_collapse.enable=False",
    ]


def _run(command: str, arguments: Sequence[str], folder: Path) -> None:
    # Lets the next start find processes that a killed launcher left running.
    environment = {**os.environ, RUN_FOLDER_VARIABLE: str(folder)}
    subprocess.run([sys.executable, "-m", "mmupt", command, *arguments], check=True, env=environment)


def _head(config: DictConfig, rounds: int, folder: Path) -> Head:
    shown = shown_path(folder)
    return Head(
        {
            "model": str(config.actor_rollout_ref.model.path),
            "rounds": f"{rounds}, each of questions about {', '.join(file_list(config.mmupt.self_improve.images))}",
            "writes to": f"{shown}, all output to logs/ in {shown} and in the folders of each round",
        }
    )


def _take_evaluation(previous: Path, evaluation: Path) -> None:
    """Copy the last evaluation of a round as the first of the next round, which starts from the same policy."""
    after, before = previous / "after.jsonl", evaluation / "before.jsonl"
    if after.is_file() and not before.exists():
        copy_responses(after, before)


def _check_continued(config: DictConfig, folder: Path) -> None:
    """Refuse settings that differ from those of the finished rounds in more than their length."""
    saved = folder / RECIPE
    if saved.is_file() and any(folder.glob(f"round_*/{POLICY}")):
        before: Any = OmegaConf.load(saved)
        if reason := why_another_run(before, config):
            raise RecipeError(f"{folder} holds rounds with other settings:{reason}; for others, give --folder")
    write_atomically(saved, OmegaConf.to_yaml(config))


def _check(config: DictConfig, recipe: str, overrides: Sequence[str]) -> None:
    if config.mmupt.self_improve.images is None:
        raise RecipeError(f"recipe {recipe} has no images to write questions about: set mmupt.self_improve.images")
    if config.mmupt.evaluation_files is None:
        raise RecipeError(f"recipe {recipe} cannot compare its rounds: it needs mmupt.evaluation_files")
    steps = config.mmupt.self_improve.writer_steps
    if type(steps) is not int or steps < 0:
        raise RecipeError(f"mmupt.self_improve.writer_steps must be a whole number of at least 0, not {steps!r}")
    if steps:
        writer, _ = load_recipe(recipe, _of_writer(config, overrides))
        if writer.mmupt.baseline.method is not None:
            raise RecipeError(
                f"the writer is trained by GRPO, but recipe {recipe} by {writer.mmupt.baseline.method}: set "
                "mmupt.self_improve.writer_steps=0"
            )
        asked = _synthesis_config(_synthesis(config, 1, str(config.actor_rollout_ref.model.path), Path()))
        if asked.show_voted_answer or asked.system_prompt is not None:
            raise RecipeError(
                "mmupt.self_improve.synthesis: the writer is trained on requests without a voted answer and without a "
                "system prompt: leave out show_voted_answer and system_prompt, or set mmupt.self_improve.writer_steps=0"
            )
