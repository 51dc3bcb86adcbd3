"""Let a model write questions about images, and keep those that are worth training on.

    python -m recipes.mmupt.synthesize model=Qwen/Qwen2.5-VL-7B-Instruct data=datasets/mmr1/train.parquet

Every key is documented in `synthesis/config/`, every filter in docs/synthesis.md. The output folder gets the questions
(`train.parquet`, without any answer), `candidates.jsonl` with what became of every response, a report, and a page of
images with their questions. The same command after a kill asks the model for what is missing, and for nothing twice.
"""

import hashlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from recipes.mmupt.evaluation.partial import OtherParametersError
from recipes.mmupt.evaluation.settings import Settings
from recipes.mmupt.hardware import engine_keys
from recipes.mmupt.leftovers import RUN_FOLDER_VARIABLE, sole_run
from recipes.mmupt.merge import model_folder
from recipes.mmupt.synthesis.candidates import Candidate, Judged
from recipes.mmupt.synthesis.filters import FILTERS, Reason, apply, difficulty, self_check
from recipes.mmupt.synthesis.output import write_candidates, write_questions
from recipes.mmupt.synthesis.parents import Parent, read_parents
from recipes.mmupt.synthesis.parsing import question_in
from recipes.mmupt.synthesis.prompts import PromptError, fill, read_prompt
from recipes.mmupt.synthesis.report import write_report
from recipes.mmupt.synthesis.sheet import write_sheet
from recipes.mmupt.synthesis.stages import Stages, request
from recipes.mmupt.synthesis.strategies import STRATEGIES
from verl_ext.answers import extract_answer
from verl_ext.datasets.truth import file_list
from verl_ext.votes import Vote, vote

CONFIG_FOLDER = Path(__file__).parent / "synthesis" / "config"


class SynthesisError(Exception):
    """What cannot be synthesized; the message names key or file, and the fix."""


def load_config(overrides: Sequence[str]) -> DictConfig:
    """Compose the configuration; SynthesisError for a key that it does not have, and for whatever Hydra refuses."""
    try:
        with initialize_config_dir(str(CONFIG_FOLDER), version_base=None):
            return compose("synthesis", overrides=list(overrides))
    except HydraException as error:
        raise SynthesisError(f"{error}\nThe keys are documented in {CONFIG_FOLDER}") from error


def synthesize(config: DictConfig) -> Path:
    """Make the questions that are missing; returns their file.

    Raises:
        SynthesisError: what can be known to fail before anything starts, or no question is left.
        BlockingIOError: another synthesis writes into the same folder.
    """
    files = [Path(file) for file in file_list(config.data)]
    if missing := [str(file) for file in files if not file.is_file()]:
        raise SynthesisError(f"data: {', '.join(missing)} is missing; make it by `make data`")
    if unknown := sorted(set(config.strategies) - STRATEGIES.keys()):
        raise SynthesisError(f"strategies: {', '.join(unknown)} is none of {', '.join(STRATEGIES)}")
    output = Path(config.output or f"runs/synthesis/{Path(str(config.model).rstrip('/')).name}").absolute()
    os.environ.setdefault(RUN_FOLDER_VARIABLE, str(output))
    with sole_run(output, output / "config.yaml"):
        try:
            return _synthesize(config, files, output)
        except (PromptError, OtherParametersError, ValueError) as error:
            raise SynthesisError(str(error)) from error


def _synthesize(config: DictConfig, files: Sequence[Path], output: Path) -> Path:
    prompts = {name: read_prompt(prompt) for name, prompt in config.prompts.items()}
    parents, without_images = read_parents(files, config.limit)
    stages = Stages(output / "responses", tuple(files), config.limit, config.replace)
    common = _common_settings(config, model_folder(str(config.model), output))
    OmegaConf.save(config, output / "config.yaml")
    quick = Settings(**common, **_block(config.respond))
    votes: dict[str, Vote] = {}
    if config.show_voted_answer and "in_context" in config.strategies:
        rows = [request(one.id, one.images, fill_question(one.question)) for one in parents if one.question]
        votes = _votes(stages.responses("parents", quick, rows), config, {one.id: one.choices for one in parents})
    asking = Settings(**common, instruction=None, extraction="boxed", **_block(config.ask))
    candidates = ask(config, stages, asking, prompts, parents, votes)
    ...
