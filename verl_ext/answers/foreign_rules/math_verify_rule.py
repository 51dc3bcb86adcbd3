"""Compare two answers with Math-Verify, which evaluates text and must therefore run in a child process."""

import logging

from math_verify import parse, verify

# Math-Verify logs a warning at every call without a time limit of its own.
logging.getLogger("math_verify").setLevel(logging.ERROR)


def equal(a: str, b: str) -> bool:
    """Return whether `verify` of Math-Verify accepts the answer a for the ground truth b."""
    # Math-Verify's own time limits would reset the alarm that ends the sandboxed process.
    answer, truth = (parse(rf"\boxed{{{text}}}", parsing_timeout=None) for text in (a, b))
    return bool(verify(truth, answer, timeout_seconds=None))


# The parser loads its grammar at first use. Load it before any child is forked instead of in each child.
equal(r"\frac{1}{2}", "0.5")
