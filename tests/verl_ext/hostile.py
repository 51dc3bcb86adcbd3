"""Comparisons that misbehave as a response might make them. The first answer names the misbehaviour."""

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable

import sympy


def hang() -> None:
    print(9**9**9**9)


def hang_deaf_to_the_alarm() -> None:
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    time.sleep(60)


def vanish_and_live_on() -> None:
    signal.setitimer(signal.ITIMER_REAL, 0)
    os.closerange(3, 256)
    time.sleep(60)


def eat_memory() -> None:
    bytearray(8 << 30)


def eat_memory_in_small_pieces() -> None:
    pieces = []
    while True:
        pieces.append(bytearray(1 << 20))


def segfault() -> None:
    ctypes.string_at(0)


def sys_exit() -> None:
    sys.exit()


def os_exit() -> None:
    os._exit(0)


def abort() -> None:
    os.abort()


def raise_an_exception() -> None:
    raise ValueError


def recurse() -> None:
    recurse()


def recurse_without_limit() -> None:
    sys.setrecursionlimit(1 << 30)
    recurse()


MISBEHAVIOURS: dict[str, Callable[[], None]] = {
    function.__name__: function
    for function in (
        hang,
        hang_deaf_to_the_alarm,
        vanish_and_live_on,
        eat_memory,
        eat_memory_in_small_pieces,
        segfault,
        sys_exit,
        os_exit,
        abort,
        raise_an_exception,
        recurse,
        recurse_without_limit,
    )
}


def compare(a: str, b: str) -> bool:
    """Whether the answers are equal. If the first names a misbehaviour, do that first."""
    if a in MISBEHAVIOURS:
        MISBEHAVIOURS[a]()
    return a == b


def own_number(a: str, b: int) -> bool:
    """Whether b is the pid of the comparing process."""
    return os.getpid() == b


def same_expression(a: str, b: str) -> bool:
    """Whether sympy simplifies the difference of two expressions to 0."""
    return sympy.simplify(sympy.sympify(a) - sympy.sympify(b)) == 0
