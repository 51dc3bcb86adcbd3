"""Generates the responses of a run's policy to `mmupt.evaluation_files`, before and after training.

    python -m mmupt.training.policy_evaluation RUN_FOLDER NAME MODEL

adds the missing responses to `RUN_FOLDER/evaluation/NAME.jsonl`, which the report scores.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mmupt.compose import RecipeError
from mmupt.console import Phase, emit
from mmupt.evaluation.evaluate import EvaluationError, QuestionSet, generate
from mmupt.evaluation.generation import EngineError
from mmupt.evaluation.generation_settings import GenerationSettings
from mmupt.runtime.run_lock import exclusive_run
from verl_ext.files import file_list

BEFORE, AFTER = "before", "after"


def evaluate_policy(config: DictConfig, model: str | Path, name: str) -> None:
    """Generate the missing responses of a model in a separate process, as vLLM frees its memory only at process exit.

    The run folder must have the saved config; `name` is BEFORE or AFTER.

    Raises:
        RecipeError: the evaluation failed; its output says why.
    """
    emit(Phase(f"evaluate the policy {name} training"))
    command = [sys.executable, "-m", __name__, str(config.mmupt.run_folder), name, str(model)]
    try:
        subprocess.run(command, check=True)
    except subprocess.CalledProcessError as error:
        raise RecipeError(f"the evaluation {name} training ended with status {error.returncode}") from error


def evaluation_settings(config: DictConfig, name: str, model: str) -> GenerationSettings:
    """Greedy responses, and samples drawn as in training rollouts; with the pixel limits of validation."""
    return GenerationSettings.from_recipe(
        config,
        model,
        training=False,
        greedy=True,
        samples=config.mmupt.evaluation_samples,
        instruction=config.data.instruction,
        # Independent of the training seed.
        seed=0,
        forbidden_openings=tuple(config.mmupt.evaluation_forbidden_openings or ()) if name == AFTER else (),
    )


def main() -> None:
    """Generate the responses of the model given on the command line."""
    run_folder, name, model = sys.argv[1:]
    config: Any = OmegaConf.load(Path(run_folder) / "config.yaml")
    output = Path(run_folder) / "evaluation"
    files = tuple(map(Path, file_list(config.mmupt.evaluation_files)))
    questions = QuestionSet(name, files, output / f"{name}.jsonl")
    try:
        with exclusive_run(output, questions.output.with_suffix(".partial.jsonl")):
            # Training may have continued since: responses of an older policy are replaced.
            generate(evaluation_settings(config, name, model), [questions], replace=True)
    except (EvaluationError, EngineError, BlockingIOError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
