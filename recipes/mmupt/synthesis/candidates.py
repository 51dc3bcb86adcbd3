"""A question that a model wrote, before and after it is judged."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Candidate:
    """What a model wrote when it was asked for a question.

    id: `<parent>-<strategy>-r<round>-<n>`, n counting the responses to one request from 0.
    parent, strategy: the id of the row that it was made from, and how.
    image: tells the images of the row apart from those of others.
    parent_question: what is asked about them already; None for nothing.
    prompt_sha256: of the text that the model was asked with.
    response: the whole response.
    question: what was found in it; None for nothing.
    """

    id: str
    parent: str
    strategy: str
    image: str
    parent_question: str | None
    prompt_sha256: str
    response: str
    question: str | None


@dataclass(frozen=True)
class JudgedCandidate:
    """A candidate with what became of it.

    dropped_by, reason: the filter that dropped it and why; None for a question that is kept.
    vote_share: share of the majority among quick responses; None where it was not measured.
    """

    candidate: Candidate
    dropped_by: str | None = None
    reason: str | None = None
    vote_share: float | None = None

    @property
    def kept(self) -> bool:
        """Whether no filter dropped it."""
        return self.dropped_by is None
