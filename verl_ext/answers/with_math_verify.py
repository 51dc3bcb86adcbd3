"""Whether two answers are equal, by Math-Verify: it evaluates text, so that it is called in a child process only."""

from math_verify import parse, verify


def equal(a: str, b: str) -> bool:
    """Whether `verify` of Math-Verify accepts the answer a where b is the truth."""
    # It limits time by the alarm of its process, which `verl_ext.answers.isolated` has set.
    answer, truth = (parse(rf"\boxed{{{text}}}", parsing_timeout=None) for text in (a, b))
    return bool(verify(truth, answer, timeout_seconds=None))


# Its parser loads its grammar at first use: here, before any child is forked, instead of in each of them.
equal(r"\frac{1}{2}", "0.5")
