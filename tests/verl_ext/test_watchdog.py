"""The watchdog ends a run that cannot go on, with the reason, and no other."""

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from verl_ext.rollout import watchdog
from verl_ext.rollout.watchdog import Watchdog, WatchdogError


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "SECONDS_BETWEEN_CHECKS", 0.01)
    monkeypatch.setattr(watchdog, "SECONDS_TO_DESCRIBE", 0.1)


@pytest.fixture
def watched() -> Iterator[Callable[..., None]]:
    """Stands for the trainer's `fit`, watched while it runs its steps."""
    started: list[Watchdog] = []

    def fit(steps: Callable[[Watchdog], None], **options: object) -> None:
        defaults = {"patience": 60.0, "list_actors": lambda: ["reward_0"], "describe": lambda: "3 groups generate"}
        watch = Watchdog("fit", **{**defaults, **options})
        started.append(watch)
        watch.start()
        steps(watch)

    yield fit
    for watch in started:
        watch.join(timeout=2)
        assert not watch.is_alive(), "the watchdog outlives what it watches"


def test_a_run_in_which_nothing_finishes_ends_with_what_is_pending(watched: Callable[..., None]) -> None:
    with pytest.raises(WatchdogError, match="nothing has finished for 0 s; 3 groups generate"):
        watched(lambda watch: time.sleep(5), patience=0.1)


def test_the_error_reaches_a_main_thread_that_waits_for_another(watched: Callable[..., None]) -> None:
    with pytest.raises(WatchdogError):
        watched(lambda watch: threading.Event().wait(5), patience=0.1)


def test_progress_keeps_a_slow_run_alive(watched: Callable[..., None]) -> None:
    def steps(watch: Watchdog) -> None:
        for _ in range(10):
            time.sleep(0.05)
            watch.progress()

    watched(steps, patience=0.3)


def test_an_actor_that_was_there_and_is_gone_ends_the_run_by_name(watched: Callable[..., None]) -> None:
    actors = ["reward_0", "vllm_0"]

    def steps(watch: Watchdog) -> None:
        time.sleep(0.1)
        actors.remove("vllm_0")
        time.sleep(5)

    with pytest.raises(WatchdogError, match="died: vllm_0; 3 groups generate"):
        watched(steps, list_actors=lambda: list(actors))


def test_actors_that_come_later_are_watched_from_then_on(watched: Callable[..., None]) -> None:
    actors: list[str] = []

    def steps(watch: Watchdog) -> None:
        time.sleep(0.05)
        actors.append("late")
        time.sleep(0.1)
        actors.clear()
        time.sleep(5)

    with pytest.raises(WatchdogError, match="died: late"):
        watched(steps, list_actors=lambda: list(actors))


def test_actors_may_go_once_the_run_is_over(watched: Callable[..., None]) -> None:
    actors = ["reward_0"]
    watched(lambda watch: time.sleep(0.05), list_actors=lambda: list(actors))
    actors.clear()
    time.sleep(0.1)


def test_a_description_that_hangs_does_not_keep_the_run_waiting(watched: Callable[..., None]) -> None:
    with pytest.raises(WatchdogError, match="what is pending could not be found out"):
        watched(lambda watch: time.sleep(5), patience=0.05, describe=lambda: str(time.sleep(3)))
