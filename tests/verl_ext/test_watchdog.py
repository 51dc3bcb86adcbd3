"""The watchdog ends a run that cannot continue, and no other, and gives the reason."""

import threading
import time
from collections.abc import Callable

import pytest

from verl_ext.rollout import watchdog
from verl_ext.rollout.watchdog import Watchdog


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "SECONDS_BETWEEN_CHECKS", 0.01)
    monkeypatch.setattr(watchdog, "SECONDS_TO_DESCRIBE", 0.1)


def watched(steps: Callable[[Watchdog, threading.Event], None], **options: object) -> str | None:
    """Run the steps like a trainer under a watchdog. Returns the reason why it ended them, or None."""
    reasons: list[str] = []
    ended = threading.Event()

    def end(reason: str) -> None:
        reasons.append(reason)
        ended.set()

    def fit() -> Watchdog:
        defaults = {"patience": 60.0, "list_actors": lambda: ["reward_0"], "describe": lambda: "3 groups generate"}
        watch = Watchdog("fit", **{"finished": lambda: None, **defaults, **options}, end=end)
        watch.start()
        steps(watch, ended)
        return watch

    watch = fit()
    watch.join(timeout=2)
    assert not watch.is_alive(), "the watchdog outlives what it watches"
    return reasons[0] if reasons else None


def test_a_run_without_progress_ends_with_what_is_pending_and_the_call_stack() -> None:
    reason = watched(lambda watch, ended: ended.wait(5), patience=0.1)
    assert reason is not None and reason.startswith(
        "nothing has finished for 0 s; 3 groups generate. The trainer stands"
    )
    assert "in fit" in reason and "ended.wait(5)" in reason


def test_time_before_the_start_is_not_counted() -> None:
    reasons: list[str] = []

    def fit() -> None:
        watch = Watchdog("fit", 0.2, lambda: [], lambda: "", lambda: None, end=reasons.append)
        time.sleep(0.3)
        watch.start()
        time.sleep(0.1)

    fit()
    time.sleep(0.05)
    assert reasons == []


def test_progress_keeps_a_slow_run_alive() -> None:
    def steps(watch: Watchdog, ended: threading.Event) -> None:
        for _ in range(10):
            time.sleep(0.05)
            watch.progress()

    assert watched(steps, patience=0.3) is None


def test_a_step_may_take_longer_than_the_patience_for_each_of_its_phases() -> None:
    timing: dict[str, float] = {}

    def steps(watch: Watchdog, ended: threading.Event) -> None:
        for phase in ("gen", "old_log_prob", "ref", "update_actor", "save_checkpoint", "update_weights"):
            ended.wait(0.1)
            timing[phase] = timing.get(phase, 0.0) + 0.1

    assert watched(steps, patience=0.3, finished=lambda: list(timing.items())) is None
    reason = watched(lambda watch, ended: ended.wait(5), patience=0.3, finished=lambda: list(timing.items()))
    assert reason is not None and reason.startswith("nothing has finished")


def test_a_dead_actor_ends_the_run_and_is_named() -> None:
    actors = ["reward_0", "vllm_0"]

    def steps(watch: Watchdog, ended: threading.Event) -> None:
        time.sleep(0.1)
        actors.remove("vllm_0")
        ended.wait(5)

    reason = watched(steps, list_actors=lambda: list(actors))
    assert reason is not None and reason.startswith("died: vllm_0; 3 groups generate")


def test_actors_that_start_later_are_watched_too() -> None:
    actors: list[str] = []

    def steps(watch: Watchdog, ended: threading.Event) -> None:
        time.sleep(0.05)
        actors.append("late")
        time.sleep(0.1)
        actors.clear()
        ended.wait(5)

    reason = watched(steps, list_actors=lambda: list(actors))
    assert reason is not None and reason.startswith("died: late")


def test_actors_may_end_once_the_run_is_over() -> None:
    actors = ["reward_0"]
    assert watched(lambda watch, ended: time.sleep(0.05), list_actors=lambda: list(actors)) is None
    actors.clear()
    time.sleep(0.1)


def test_an_error_while_listing_actors_is_no_death() -> None:
    calls: list[int] = []

    def list_actors() -> list[str]:
        calls.append(1)
        if len(calls) % 2 == 0:
            raise ConnectionError("try again")
        return ["reward_0"]

    assert watched(lambda watch, ended: time.sleep(0.2), list_actors=list_actors) is None and len(calls) > 4


def test_a_hanging_description_does_not_keep_the_run_waiting() -> None:
    reason = watched(lambda watch, ended: ended.wait(5), patience=0.05, describe=lambda: str(time.sleep(3)))
    assert reason is not None and "what is pending could not be found out" in reason
