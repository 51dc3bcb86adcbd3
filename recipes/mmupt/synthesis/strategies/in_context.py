"""The paper's strategy `in_context` (MM-UPT, arXiv 2505.22453), without the ground truth."""

from mmupt.synthesis.source_rows import Parent
from mmupt.synthesis.strategies import STRATEGIES, StrategyPrompt


@STRATEGIES.register
def in_context(parent: Parent, voted: str | None) -> StrategyPrompt | None:
    """Request a new question from the image and its existing question."""
    if parent.question is None:
        return None
    if voted is None:
        return StrategyPrompt("in_context", {"question": parent.question})
    return StrategyPrompt("in_context_with_answer", {"question": parent.question, "answer": voted})
