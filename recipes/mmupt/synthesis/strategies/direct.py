"""The paper's strategy `direct` (MM-UPT, arXiv 2505.22453)."""

from mmupt.synthesis.source_rows import Parent
from mmupt.synthesis.strategies import STRATEGIES, StrategyPrompt


@STRATEGIES.register
def direct(parent: Parent, voted: str | None) -> StrategyPrompt:
    """Request a question from the image alone."""
    return StrategyPrompt("direct")
