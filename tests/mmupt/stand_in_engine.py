"""A scripted engine that replaces vLLM in tests of evaluation, synthesis and baselines."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from mmupt.evaluation.generation import QuestionRequest, QuestionResponses, ReusableEngine
from mmupt.evaluation.generation_settings import GenerationSettings
from mmupt.evaluation.response_files import Response


class OutOfMemory(Exception):
    """The failure of a stand-in engine."""


@dataclass
class StandInEngine:
    """Records its requests and fails after `fails_after` of them; subclasses define the responses."""

    fails_after: int = 10**9
    asked: list[QuestionRequest] = field(default_factory=list)
    settings: list[GenerationSettings] = field(default_factory=list)

    @property
    def seeds(self) -> set[int]:
        """The seeds of all requests."""
        return {one.seed for one in self.settings}

    def answers(
        self, settings: GenerationSettings, asked: Sequence[QuestionRequest], _kept: ReusableEngine | None = None
    ) -> Iterator[QuestionResponses]:
        self.settings.append(settings)
        # Finishes in another order than requested.
        for one in reversed(asked):
            if len(self.asked) == self.fails_after:
                raise OutOfMemory
            self.asked.append(one)
            texts = [self.says(one, number) for number in range(1 if one.mode == "greedy" else settings.samples)]
            yield QuestionResponses(
                one.name, tuple(Response(one.row["id"], one.mode, i, t, 5) for i, t in enumerate(texts))
            )

    def says(self, one: QuestionRequest, number: int) -> str:
        """The response with this number to a row."""
        raise NotImplementedError

    def of(self, name: str) -> list[QuestionRequest]:
        """The requests for the file of this name: a benchmark or a stage."""
        return [one for one in self.asked if one.name == name]


def content(one: QuestionRequest) -> str:
    """The text of a prompt."""
    return str(one.row["prompt"][0]["content"])
