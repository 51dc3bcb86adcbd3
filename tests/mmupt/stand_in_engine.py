"""A scripted engine that replaces vLLM in tests of evaluation, synthesis and baselines."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mmupt.evaluation.generation import QuestionRequest, QuestionResponses, ReusableEngine
from mmupt.evaluation.generation_settings import GenerationSettings
from mmupt.evaluation.response_files import Response
from mmupt_data.row_schema import Row, prompts_path
from mmupt_data.writer import write_dataset


class OutOfMemory(Exception):
    """The failure of a stand-in engine."""


@dataclass
class StandInEngine:
    """Records its requests and fails after `fails_after` of them; subclasses define the responses."""

    fails_after: int = 10**9
    requests: list[QuestionRequest] = field(default_factory=list)
    settings: list[GenerationSettings] = field(default_factory=list)

    @property
    def seeds(self) -> set[int]:
        """The seeds of all requests."""
        return {settings.seed for settings in self.settings}

    def answers(
        self, settings: GenerationSettings, requests: Sequence[QuestionRequest], _engine: ReusableEngine | None = None
    ) -> Iterator[QuestionResponses]:
        """Stand in for `generation.answer_questions`: finish in another order than requested."""
        self.settings.append(settings)
        for request in reversed(requests):
            if len(self.requests) == self.fails_after:
                raise OutOfMemory
            self.requests.append(request)
            samples = range(1 if request.mode == "greedy" else settings.samples)
            texts = [self.respond(request, number) for number in samples]
            yield QuestionResponses(
                request.name, tuple(Response(request.row["id"], request.mode, i, t, 5) for i, t in enumerate(texts))
            )

    def respond(self, request: QuestionRequest, number: int) -> str:
        """Return response `number` to a request."""
        raise NotImplementedError

    def requests_for(self, name: str) -> list[QuestionRequest]:
        """Return the requests for the file of this name: a benchmark or a stage."""
        return [request for request in self.requests if request.name == name]


def content(request: QuestionRequest) -> str:
    """The text of a prompt."""
    return str(request.row["prompt"][0]["content"])


def write_training_rows(folder: Path, rows: Sequence[Row]) -> Path:
    """Write rows as the training split of a data set in `folder`/data and return their file."""
    write_dataset(folder / "data", {"train": rows}, {})
    return prompts_path(folder / "data", "train")
