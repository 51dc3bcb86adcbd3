r"""Answers: what a response answers, and when two answers are the same.

A response is the text that the policy wrote; its answer is what stands in its last `\boxed{...}`, or None. Who votes
with answers and what is rewarded is the business of `verl_ext.votes`; how right answers are, of `verl_ext.scores`.
"""

import re

# An escaped brace is a token of its own, so that it neither opens nor closes anything.
_BRACES = re.compile(r"(?P<box>\\boxed\s*\{)|\\[{}]|(?P<open>\{)|(?P<close>\})")


def extract_answer(response: str) -> str | None:
    r"""Return the content of the last complete `\boxed{...}` of a response, trimmed, or None where there is no answer.

    Braces inside a box must balance; `\{` and `\}` do not count. The last box is the one that closes last, so of nested
    boxes the outermost counts, and where a box is never closed, the last one that was. An empty box is no answer. One
    pass over the text, whatever it holds.

    >>> extract_answer(r"2 + 4 = 6 . so \boxed{\frac{6}{1}}")
    '\\frac{6}{1}'
    >>> extract_answer("so 6") is None
    True
    """
    opened: list[int | None] = []  # for each brace still open: the beginning of its box's content, None for a plain one
    last = slice(0)
    for token in _BRACES.finditer(response):
        if token["box"]:
            opened.append(token.end())
        elif token["open"]:
            opened.append(None)
        elif token["close"] and opened and (begin := opened.pop()) is not None:
            last = slice(begin, token.start())
    return response[last].strip() or None


def canonical(answer: str) -> str:
    """Return the key under which an answer is counted: equal answers, and only they, have equal keys.

    A key is itself an answer, and its own key. Answers are equal where their trimmed texts are.
    """
    return answer.strip()


def equivalent(a: str | None, b: str | None) -> bool:
    """Whether both are answers and they are the same answer: None, which is no answer, does not even equal None.

    On answers this is an equivalence relation by construction, so classes of equal answers do not depend on the order
    in which they are compared.
    """
    return a is not None and b is not None and canonical(a) == canonical(b)
