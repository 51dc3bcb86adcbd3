"""Comparisons within limits: the caller survives whatever a response does to the process that compares it."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import hostile
import psutil
import pytest

from verl_ext.answers.foreign_rules import sandbox
from verl_ext.answers.foreign_rules.sandbox import Sandbox

SECONDS = 0.5


def warm_up(function: str) -> None:
    """Fork a child, which makes the fork server start and import the function."""
    sandbox._fork(function, SECONDS, memory_mib=512).end()


@pytest.fixture(autouse=True, scope="module")
def warm() -> None:
    warm_up("hostile:compare")


@pytest.fixture
def session() -> Iterator[Sandbox]:
    with Sandbox("hostile:compare", SECONDS, memory_mib=128) as session:
        yield session


def fork_server() -> psutil.Process:
    assert sandbox._fork_server is not None
    return psutil.Process(sandbox._fork_server.process.pid)


def ended(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def comes_true(condition: Callable[[], bool], seconds: float = 60.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def test_a_call_returns_the_verdict_of_the_function(session: Sandbox) -> None:
    assert [session("1", "1"), session("1", "2"), session("1", "1")] == [True, False, True]


def test_long_answers_are_compared(session: Sandbox) -> None:
    assert session("½" * 1_000_000, "½" * 1_000_000) is True


@pytest.mark.parametrize("misbehaviour", hostile.MISBEHAVIOURS)
def test_misbehaviour_is_undecided_within_the_limit_and_the_next_call_is_decided(
    session: Sandbox, misbehaviour: str
) -> None:
    assert session("1", "1") is True
    begin = time.monotonic()
    assert session(misbehaviour, "") is None
    assert time.monotonic() - begin < 4 * SECONDS
    assert session("1", "1") is True


def test_a_healthy_session_keeps_its_child() -> None:
    with Sandbox("hostile:own_number", SECONDS) as session:
        session("", 0)
        (child,) = fork_server().children()
        assert session("", child.pid) and session("", child.pid)


@pytest.mark.parametrize("misbehaviour", ["hang_deaf_to_the_alarm", "vanish_and_live_on"])
def test_a_child_that_disarmed_its_alarm_is_ended(session: Sandbox, misbehaviour: str) -> None:
    session("1", "1")
    (child,) = fork_server().children()
    session(misbehaviour, "")
    assert comes_true(lambda: ended(child))


def test_an_interrupted_call_leaves_no_verdict_for_the_next_call(
    session: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted(BaseException):
        pass

    def interrupt(*_: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(Interrupted):
            session("hang", "")
    finally:
        signal.signal(signal.SIGALRM, before)
    assert [session("1", "2"), session("1", "1")] == [False, True]


def test_a_session_does_not_wait_for_another_session_that_hangs() -> None:
    verdicts: list[bool | None] = []

    def hang() -> None:
        with Sandbox("hostile:compare", seconds=1.5) as session:
            verdicts.append(session("hang", ""))

    thread = threading.Thread(target=hang)
    thread.start()
    with Sandbox("hostile:compare", SECONDS) as session:
        assert [session("1", "1") for _ in range(20)] == [True] * 20
    assert thread.is_alive()
    thread.join()
    assert verdicts == [None]


def test_each_thread_can_use_its_own_session() -> None:
    verdicts: dict[int, list[bool | None]] = {}

    def compare(number: int) -> None:
        with Sandbox("hostile:compare", seconds=5.0) as session:
            verdicts[number] = [session(str(number), str(other)) for other in range(8)]

    threads = [threading.Thread(target=compare, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert verdicts == {number: [number == other for other in range(8)] for number in range(8)}


def test_sessions_work_in_a_running_event_loop() -> None:
    async def compare() -> list[bool | None]:
        with Sandbox("hostile:compare", SECONDS) as session:
            return [session("1", "1"), session("hang", ""), session("1", "2")]

    assert asyncio.run(compare()) == [True, None, False]


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("sin(x)**2 + cos(x)**2", "1", True),
        ("sqrt(2) / 2", "1 / sqrt(2)", True),
        ("integrate(x * exp(x), x)", "(x - 1) * exp(x)", True),
        ("Matrix([[1, 2], [3, 4]]).det()", "2", False),
    ],
)
def test_sympy_works_within_the_limits(a: str, b: str, same: bool) -> None:
    with Sandbox("hostile:same_expression", seconds=20.0) as session:
        assert session(a, b) is same


def test_a_closed_session_leaves_no_process() -> None:
    with Sandbox("hostile:compare", SECONDS) as session:
        session("1", "1")
        assert fork_server().children()
    assert comes_true(lambda: not fork_server().children())


def test_a_killed_fork_server_is_replaced(session: Sandbox) -> None:
    assert session("1", "1") is True
    children = fork_server().children()
    fork_server().kill()
    assert comes_true(lambda: all(map(ended, children)))
    assert session("1", "1") is None
    assert session("1", "1") is True


def test_a_fork_server_that_cannot_start_raises_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "_fork_server", None)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="/bin/false did not import hostile:compare"):
        Sandbox("hostile:compare", SECONDS)("1", "1")


@pytest.mark.parametrize("function", ["hostile:no_such_function", "no_such_module:compare", "hostile"])
def test_a_function_that_cannot_be_imported_is_named_in_the_error(function: str, session: Sandbox) -> None:
    assert session("1", "1") is True
    with pytest.raises(RuntimeError, match=function):
        warm_up(function)
    assert session("1", "1") is True, "the error affected another session"


def test_a_forked_process_has_its_own_fork_server() -> None:
    warm_up("hostile:compare")
    pid = os.fork()
    if pid == 0:
        try:
            with Sandbox("hostile:compare", SECONDS) as session:
                os._exit(0 if sandbox._fork_server is None and session("1", "1") is True else 1)
        finally:
            os._exit(2)
    assert os.waitpid(pid, 0)[1] == 0
    with Sandbox("hostile:compare", SECONDS) as session:
        assert session("1", "1") is True


def client(code: str, folder: Path) -> "subprocess.Popen[bytes]":
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen([sys.executable, "-c", code], env=environment, cwd=folder)


def test_no_process_survives_a_killed_client(tmp_path: Path) -> None:
    code = """
import threading
from verl_ext.answers.foreign_rules.sandbox import Sandbox
for misbehaviour in ("hang", "hang_deaf_to_the_alarm"):
    threading.Thread(target=Sandbox("hostile:compare", seconds=60.0), args=(misbehaviour, "")).start()
"""
    with client(code, tmp_path) as process:
        family = psutil.Process(process.pid)
        assert comes_true(lambda: len(family.children(recursive=True)) == 3)
        descendants = family.children(recursive=True)
        process.kill()
        assert comes_true(lambda: all(map(ended, descendants)))


def test_blocked_signals_and_the_working_directory_of_the_client_do_not_matter(tmp_path: Path) -> None:
    (tmp_path / "sympy.py").write_text("raise ImportError('a stray file')")
    code = """
import os, signal, sys
sys.path.remove("")
from verl_ext.answers.foreign_rules import sandbox
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
signal.signal(signal.SIGALRM, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM, signal.SIGCHLD])
sandbox.SECONDS_OF_GRACE = 60.0
with sandbox.Sandbox("hostile:compare", seconds=0.3) as session:
    verdicts, fork_servers = [], set()
    for answer in ("1", "hang", "1", "segfault", "1"):
        verdicts.append(session(answer, "1"))
        fork_servers.add(sandbox._fork_server)
os._exit(0 if verdicts == [True, None, True, None, True] and len(fork_servers) == 1 else 1)
"""
    with client(code, tmp_path) as process:
        assert process.wait(timeout=30) == 0
