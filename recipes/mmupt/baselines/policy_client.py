"""The policy of a method: generates the responses of each stage with vLLM through the response cache.

Each completed stage is also written to `STAGE.parquet`, in the format of `mmupt.baselines.training_sets`.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from omegaconf import DictConfig

from mmupt.baselines.prompt_rows import PromptRow
from mmupt.baselines.selection import Sample
from mmupt.baselines.training_sets import RESPONSES, Origin, TrainingExample, write_set
from mmupt.evaluation.generation_settings import GenerationSettings
from mmupt.evaluation.response_cache import ResponseCache, prompt_row
from mmupt_data.row_schema import PLACEHOLDER, user_text
from verl_ext.answers import Extraction, extract_answer


@dataclass(frozen=True)
class Policy:
    """A model in the stages of a method.

    settings: generation settings of the training rollouts. extraction: how an answer is extracted from a response.
    """

    method: str
    settings: GenerationSettings
    cache: ResponseCache
    extraction: Extraction

    @property
    def model(self) -> str:
        """Folder or hub name of the model."""
        return self.settings.model

    def samples(self, stage: str, rows: Sequence[PromptRow]) -> dict[str, list[Sample]]:
        """Sample a group of responses to each row as in training; returns them by row id."""
        prompts = [
            {"id": row.id, "prompt": row.prompt, "images": [{"bytes": image} for image in row.images]} for row in rows
        ]
        return {
            id_: [Sample(n, response, extract_answer(response, self.extraction)) for n, response in enumerate(group)]
            for id_, group in self._responses(stage, self.settings, prompts).items()
        }

    def replies(
        self, stage: str, asked: dict[str, tuple[tuple[bytes, ...], str]], **settings: Any
    ) -> dict[str, list[str]]:
        """Generate responses to each text and its images, by id; `settings` override those of the training rollouts."""
        rows = [prompt_row(id_, images, text) for id_, (images, text) in asked.items()]
        return self._responses(stage, replace(self.settings, **settings), rows)

    def _responses(
        self, stage: str, settings: GenerationSettings, rows: Sequence[Mapping[str, Any]]
    ) -> dict[str, list[str]]:
        responses = self.cache.responses(stage, settings, rows)
        write_set(self.cache.folder / f"{stage}.parquet", RESPONSES, self._examples(stage, rows, responses))
        return responses

    def _examples(
        self, stage: str, rows: Sequence[Mapping[str, Any]], responses: Mapping[str, Sequence[str]]
    ) -> Iterator[TrainingExample]:
        for row in rows:
            images = tuple(image["bytes"] for image in row["images"])
            text = user_text(row["prompt"]).replace(PLACEHOLDER, "")
            digest = hashlib.sha256(text.encode()).hexdigest()
            for number, response in enumerate(responses[row["id"]]):
                origin = Origin(self.method, stage, self.model, number, digest, None)
                yield TrainingExample(f"{row['id']}-{number}", row["prompt"], images, {"response": response}, origin)


def rollout_settings(config: DictConfig, model: str) -> GenerationSettings:
    """Generation settings of a recipe's training rollouts; the prompts of rows already include the instruction."""
    return GenerationSettings.from_recipe(
        config,
        model,
        training=True,
        greedy=False,
        samples=config.actor_rollout_ref.rollout.n,
        instruction=None,
        seed=config.mmupt.seed,
    )
