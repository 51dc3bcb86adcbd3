"""Gathers the responses to one prompt as their sessions settle, and scores them together exactly once.

Plain asyncio; independent of veRL and of how a group is scored.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Response = TypeVar("Response")
Score = TypeVar("Score")


class Group(Generic[Response, Score]):
    """Collects one response from each of `size` sessions, unless a session leaves.

    When the last session has settled, `score` is called once with the responses in the order of their session ids, and
    each waiting `submit` returns its element of the result. There are no timeouts: a session that fails must leave at
    once, and the others are scored without it.
    """

    def __init__(self, size: int, score: Callable[[list[Response]], Awaitable[Sequence[Score]]]) -> None:
        self._score = score
        self._open = set(range(size))
        self._responses: dict[int, Response] = {}
        self._scores: asyncio.Future[dict[int, Score]] = asyncio.get_running_loop().create_future()
        self._scoring: asyncio.Task[None] | None = None

    async def submit(self, session_id: int, response: Response) -> Score:
        """Add the response of a session and return its score once the whole group has settled.

        Raises:
            ValueError: the session does not belong to this group or has already settled.
            Exception: any error of `score`.
        """
        if session_id not in self._open:
            raise ValueError(f"session {session_id} is not one of the open sessions {sorted(self._open)} of its group")
        self._open.remove(session_id)
        self._responses[session_id] = response
        self._score_if_settled()
        # Shielded, because a cancelled session must not cancel the score that the others wait for.
        scores = await asyncio.shield(self._scores)
        return scores[session_id]

    def leave(self, session_id: int) -> None:
        """Take a session out of the group; does nothing once scoring has started."""
        if self._scoring is not None:
            return
        self._open.discard(session_id)
        self._responses.pop(session_id, None)
        self._score_if_settled()

    def _score_if_settled(self) -> None:
        if not self._open and self._responses and self._scoring is None:
            self._scoring = asyncio.create_task(self._run())

    async def _run(self) -> None:
        sessions = sorted(self._responses)
        try:
            scores = await self._score([self._responses[session] for session in sessions])
            self._scores.set_result(dict(zip(sessions, scores, strict=True)))
        except Exception as error:
            # `submit` raises it in every session of the group.
            self._scores.set_exception(error)
