"""How a model is led to a question of its own: one function a strategy. A new one is registered by `strategy`."""

from collections.abc import Callable
from dataclasses import dataclass

from mmupt.synthesis.source_rows import Parent


@dataclass(frozen=True)
class Asking:
    """Which prompt the model gets, by its key in the configuration's `prompts`, and the texts that go into it."""

    prompt: str
    texts: dict[str, str]


# From a row, and the answer that the model itself voted for (None: not asked, or nobody was elected), to what it is
# asked; None where the strategy can do nothing with the row.
Strategy = Callable[[Parent, str | None], Asking | None]
STRATEGIES: dict[str, Strategy] = {}


def strategy(function: Strategy) -> Strategy:
    """Register a strategy under the name of its function."""
    STRATEGIES[function.__name__] = function
    return function


@strategy
def in_context(parent: Parent, voted: str | None) -> Asking | None:
    """A new question from the image and the question that is asked about it (MM-UPT, less the truth)."""
    if parent.question is None:
        return None
    if voted is None:
        return Asking("in_context", {"question": parent.question})
    return Asking("in_context_with_answer", {"question": parent.question, "answer": voted})


@strategy
def direct(parent: Parent, voted: str | None) -> Asking | None:
    """A question from the image alone (MM-UPT, arXiv 2505.22453)."""
    return Asking("direct", {})
