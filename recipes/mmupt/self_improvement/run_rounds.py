"""Rounds of self-improvement: the policy writes questions about images, trains on them by the vote, and so on.

    mmupt self-improve mmupt_tiny_self_improve --rounds 3 [key=value ...]

Each round is `mmupt synthesize` with the policy of the round before, and then `mmupt train` on what was written, whose
evaluation and report it keeps; the overrides are those of the recipe. `mmupt.self_improve` in a
recipe says about which images, and how. The same command after a kill goes on in the middle of whichever phase it was.
When the vote share rises while held-out accuracy or pass@k falls beyond noise, no further round is made, and the best
one is kept; see `mmupt.stop_on_collapse`.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from mmupt.compose import RecipeError, as_override, load_recipe
from mmupt.console import Head, Phase, emit, log_to, show_result
from mmupt.console.session import shown_path
from mmupt.datasets import data_set
from mmupt.evaluation.generation_settings import input_settings
from mmupt.evaluation.response_files import copy_responses
from mmupt.runtime.run_lock import RUN_FOLDER_VARIABLE, end_processes, exclusive_run
from mmupt.self_improvement.rounds import Round, best_round, find_collapse_of, read_round, round_folder, write_rounds
from mmupt_data.prepare import FOLDER
from verl_ext.collapse import Collapse, read_rule
from verl_ext.files import file_list, write_atomically

# Written when a round is finished: the path of its policy.
POLICY = "policy.txt"


def self_improve(recipe: str, rounds: int, folder: Path, overrides: Sequence[str]) -> None:
    """Run the rounds that are missing.

    Raises:
        RecipeError: whatever is known to fail before anything starts.
        BlockingIOError: another process works in the same folder.
        subprocess.CalledProcessError: a phase failed; its output says why.
    """
    config, _ = load_recipe(recipe, overrides)
    _check(config, recipe)
    folder = folder.absolute()
    with exclusive_run(folder, folder / "rounds.json"):
        for number in range(1, rounds + 1):
            for phase in ("synthesis", "run"):
                # We hold the lock: whatever still runs there was left by a killed launcher.
                end_processes(round_folder(folder, number) / phase)
        log_to(folder / "logs" / "rounds.log")
        emit(_head(config, rounds, folder))
        for name in config.mmupt.datasets:
            emit(Phase(f"prepare the data set {name}"))
            data_set(name).prepare(FOLDER / name, progress=True)
        policy, done, stopped = str(config.actor_rollout_ref.model.path), [], None
        for number in range(1, rounds + 1):
            policy = make_round(config, recipe, number, folder, policy, overrides)
            done.append(read_round(folder, number))
            stopped = _collapse(config, done)
            show_result(f"\n{write_rounds(folder, done, stopped)}\n")
            if stopped:
                break
        show_result(f"The best policy is in {_best_policy(config, folder, done)}")


def make_round(
    config: DictConfig, recipe: str, number: int, folder: Path, policy: str, overrides: Sequence[str]
) -> str:
    """Run what is missing of one round, which starts from `policy`; return the path of its policy."""
    target = round_folder(folder, number)
    marker = target / POLICY
    if marker.is_file():
        return marker.read_text()
    settings = config.mmupt.self_improve
    # The policy sees images and prompts as in training, unless mmupt.self_improve.synthesis says otherwise.
    written = [as_override(name, value) for name, value in input_settings(config, training=True).items()]
    written += [*settings.synthesis, as_override("model", policy), as_override("data", file_list(settings.images))]
    written += [as_override("output", str(target / "synthesis"))]
    written += [f"round={number}", f"seed={config.mmupt.seed}", "name=train"]
    emit(Phase(f"round {number}: write questions"))
    _run("synthesize", written, target / "synthesis")
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
    # A run that collapsed immediately leaves the policy it started from.
    left = str(run / "model") if (run / "model" / "config.json").is_file() else policy
    write_atomically(marker, left)
    return left


def _run(command: str, arguments: Sequence[str], folder: Path) -> None:
    # Lets the next start find the processes that a killed one left running.
    environment = {**os.environ, RUN_FOLDER_VARIABLE: str(folder)}
    subprocess.run([sys.executable, "-m", "mmupt", command, *arguments], check=True, env=environment)


def _head(config: DictConfig, rounds: int, folder: Path) -> Head:
    shown = shown_path(folder)
    return Head(
        (
            ("model", str(config.actor_rollout_ref.model.path)),
            ("rounds", f"{rounds}, each of questions about {', '.join(file_list(config.mmupt.self_improve.images))}"),
            ("writes to", f"{shown}, all output to logs/ in {shown} and in the folders of each round"),
        )
    )


def _take_evaluation(previous: Path, evaluation: Path) -> None:
    """Copy the last evaluation of a round: the next one starts from the policy that gave these responses."""
    after, before = previous / "after.jsonl", evaluation / "before.jsonl"
    if after.is_file() and not before.exists():
        copy_responses(after, before)


def _collapse(config: DictConfig, done: Sequence[Round]) -> Collapse | None:
    rule = read_rule(config.mmupt.stop_on_collapse)
    return None if rule is None else find_collapse_of(done, rule)


def _best_policy(config: DictConfig, folder: Path, done: Sequence[Round]) -> str:
    best = best_round(done)
    return (round_folder(folder, best) / POLICY).read_text() if best else str(config.actor_rollout_ref.model.path)


def _check(config: DictConfig, recipe: str) -> None:
    if config.mmupt.self_improve.images is None:
        raise RecipeError(f"recipe {recipe} has no images to write questions about: set mmupt.self_improve.images")
    if config.mmupt.evaluation_files is None:
        raise RecipeError(f"recipe {recipe} cannot compare its rounds: it needs mmupt.evaluation_files")
