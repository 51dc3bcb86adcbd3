"""A policy that is asked by vLLM, as all of this project is; what it said is kept, so that nothing is asked twice.

Once a stage is whole, all of it is a set as well, `NAME.parquet` with the columns of `mmupt.baselines.training_sets`.
What is asked, and what becomes of it, is the business of `mmupt.baselines.methods`.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mmupt.baselines.prompt_rows import AskedRow
from mmupt.baselines.selection import Sample
from mmupt.baselines.training_sets import RESPONSES, Example, Origin, write_set
from mmupt.evaluation.evaluation_settings import Settings
from mmupt.hardware import engine_keys
from mmupt.synthesis.synthesis_stages import Stages, request
from mmupt_data.fingerprints import question_of
from mmupt_data.row_schema import PLACEHOLDER
from verl_ext.answers import Extraction, extract_answer
from verl_ext.datasets.pixel_limits import pixel_limits


@dataclass(frozen=True)
class Policy:
    """A model in the stages of a method.

    settings: of training rollouts. extraction: where answers are.
    """

    method: str
    settings: Settings
    stages: Stages
    extraction: Extraction

    @property
    def model(self) -> str:
        """Its folder or its name on the hub."""
        return self.settings.model

    def samples(self, stage: str, rows: Sequence[AskedRow]) -> dict[str, list[Sample]]:
        """The group of responses to each row by its id, sampled as in training."""
        asked = [{"id": row.id, "prompt": row.prompt, "images": _as_column(row.images)} for row in rows]
        return {
            id_: [Sample(n, said, extract_answer(said, self.extraction)) for n, said in enumerate(group)]
            for id_, group in self._responses(stage, self.settings, asked).items()
        }

    def replies(
        self, stage: str, asked: dict[str, tuple[tuple[bytes, ...], str]], **settings: Any
    ) -> dict[str, list[str]]:
        """What it says to each text about its images, by any ids; `settings` differ from those of training rollouts."""
        rows = [request(id_, images, text) for id_, (images, text) in asked.items()]
        return self._responses(stage, replace(self.settings, **settings), rows)

    def _responses(self, stage: str, settings: Settings, rows: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
        said = self.stages.responses(stage, settings, rows)
        write_set(self.stages.folder / f"{stage}.parquet", RESPONSES, self._examples(stage, rows, said))
        return said

    def _examples(
        self, stage: str, rows: Sequence[Mapping[str, Any]], said: Mapping[str, Sequence[str]]
    ) -> Iterator[Example]:
        for row in rows:
            images = tuple(image["bytes"] for image in row["images"])
            asked_with = question_of(row["prompt"]).replace(PLACEHOLDER, "")
            digest = hashlib.sha256(asked_with.encode()).hexdigest()
            for number, response in enumerate(said[row["id"]]):
                origin = Origin(self.method, stage, self.model, number, digest, None)
                yield Example(f"{row['id']}-{number}", row["prompt"], images, {"response": response}, origin)


def rollout_settings(config: DictConfig, model: str) -> Settings:
    """How a model responds in the training rollouts of a recipe, less the instruction, which rows have already."""
    rollout, data = config.actor_rollout_ref.rollout, config.data
    limits = pixel_limits(data, training=True)
    # One engine a GPU, as in an evaluation.
    machine = {"device": config.trainer.device, "dtype": rollout.dtype, "replicas": None, "tensor_parallel_size": 1}
    return Settings(
        model=model,
        greedy=False,
        samples=rollout.n,
        temperature=rollout.temperature,
        top_p=rollout.top_p,
        max_tokens=data.max_response_length,
        max_model_len=rollout.max_model_len,
        prompt="own",
        system_prompt=None,
        instruction=None,
        extraction=config.reward.reward_kwargs.answers.extraction,
        min_pixels=limits.get("min_pixels"),
        max_pixels=limits.get("max_pixels"),
        seed=config.mmupt.seed,
        **engine_keys(OmegaConf.create(machine)),
    )


def _as_column(images: Sequence[bytes]) -> list[dict[str, bytes]]:
    return [{"bytes": image} for image in images]
