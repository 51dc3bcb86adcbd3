"""A synthesized question, before and after filtering."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Candidate:
    """A response to a request for a question.

    id: `<parent>-<strategy>-r<round>-<n>`, where n counts the responses to a request from 0.
    parent, strategy: the id of the row and the name of the strategy.
    image: digest of the images of the row.
    parent_question: the question of the row, if it has one.
    prompt_sha256: SHA-256 of the text of the prompt.
    response: the whole response.
    question: the question parsed from the response, if there is one.
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
    """A candidate with the outcome of filtering.

    dropped_by, reason: the filter that dropped it and why; None for a kept question.
    vote_share: majority ratio of quick responses to the question; None if not measured.
    """

    candidate: Candidate
    dropped_by: str | None = None
    reason: str | None = None
    vote_share: float | None = None

    @property
    def kept(self) -> bool:
        """Whether no filter dropped it."""
        return self.dropped_by is None
