"""Groups gather responses, score them once, and lose only the sessions that fail."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verl_ext.rollout.group_collector import Group


class Scorer:
    """Scores a response with the size of its group, and records every call."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    async def __call__(self, responses: list[str]) -> list[tuple[str, int]]:
        self.calls.append(list(responses))
        await asyncio.sleep(0)
        return [(response, len(responses)) for response in responses]


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), timeout=5))


@given(order=st.permutations(range(4)), failing=st.sets(st.integers(0, 3)))
def test_survivors_are_scored_once_together_in_any_order_of_settling(order: list[int], failing: set[int]) -> None:
    async def body() -> None:
        scorer = Scorer()
        group = Group(4, scorer)

        async def session(number: int) -> tuple[str, int] | None:
            for _ in range(order.index(number)):
                await asyncio.sleep(0)
            try:
                if number in failing:
                    return None
                return await group.submit(number, f"response {number}")
            finally:
                group.leave(number)

        results = await asyncio.gather(*map(session, range(4)))
        survivors = [number for number in range(4) if number not in failing]
        assert scorer.calls == ([[f"response {number}" for number in survivors]] if survivors else [])
        assert results == [None if number in failing else (f"response {number}", len(survivors)) for number in range(4)]

    run(body)


def test_nothing_is_scored_before_the_last_session_has_settled() -> None:
    async def body() -> None:
        scorer = Scorer()
        group = Group(2, scorer)
        first = asyncio.create_task(group.submit(0, "a"))
        await asyncio.sleep(0.01)
        assert scorer.calls == [] and not first.done()
        assert await group.submit(1, "b") == ("b", 2)
        assert await first == ("a", 2)

    run(body)


def test_a_cancelled_session_leaves_and_the_others_still_get_their_scores() -> None:
    async def body() -> None:
        scorer = Scorer()
        group = Group(3, scorer)

        async def session(number: int) -> tuple[str, int]:
            try:
                return await group.submit(number, str(number))
            finally:
                group.leave(number)

        tasks = [asyncio.create_task(session(number)) for number in range(2)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        await asyncio.sleep(0)
        assert await session(2) == ("2", 2)
        assert await tasks[1] == ("1", 2)
        assert scorer.calls == [["1", "2"]]

    run(body)


def test_an_error_while_scoring_reaches_every_session() -> None:
    async def body() -> None:
        async def fail(responses: list[str]) -> list[str]:
            raise RuntimeError("the reward worker died")

        group: Group[str, str] = Group(2, fail)
        results = await asyncio.gather(group.submit(0, "a"), group.submit(1, "b"), return_exceptions=True)
        assert [str(result) for result in results] == ["the reward worker died"] * 2

    run(body)


def test_an_unknown_session_or_a_second_submit_is_refused() -> None:
    async def body() -> None:
        group = Group(1, Scorer())
        with pytest.raises(ValueError, match="session 7 is not one of the open sessions"):
            await group.submit(7, "a")
        await group.submit(0, "a")
        with pytest.raises(ValueError, match="session 0"):
            await group.submit(0, "again")

    run(body)
