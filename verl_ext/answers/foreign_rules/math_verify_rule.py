"""Whether two answers are equal by Math-Verify, which evaluates text and is therefore called in a child process
only."""

import logging

from math_verify import parse, verify

# It logs a warning at every call without its own time limit.
logging.getLogger("math_verify").setLevel(logging.ERROR)


def equal(a: str, b: str) -> bool:
    """Whether `verify` of Math-Verify accepts the answer a where b is the ground truth."""
    # Its own time limits would reset the alarm that ends the sandboxed process.
    answer, truth = (parse(rf"\boxed{{{text}}}", parsing_timeout=None) for text in (a, b))
    return bool(verify(truth, answer, timeout_seconds=None))


# Its parser loads its grammar at first use: here, before any child is forked, instead of in each of them.
equal(r"\frac{1}{2}", "0.5")
