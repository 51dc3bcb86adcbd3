"""Synthesis strategies: how a model is asked for a new question about the images of a row.

A new strategy is a module here with a function that `STRATEGIES.register` decorates; see docs/extending.md.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from mmupt.synthesis.source_rows import Parent
from verl_ext.registry import Registry


@dataclass(frozen=True)
class StrategyPrompt:
    """What the model is asked.

    prompt: a key of `prompts` in the configuration, which names the file with the text.
    texts: what is filled into the text, by the names that it has in braces.
    template: the text, where the configuration does not have the key.
    """

    prompt: str
    texts: Mapping[str, str] = field(default_factory=dict)
    template: str | None = None


# From a row, and the answer that the model itself voted for (None: not asked, or a tie), to what it is asked; None
# where the strategy does not apply to the row.
Strategy = Callable[[Parent, str | None], StrategyPrompt | None]
STRATEGIES: Registry[Strategy] = Registry("synthesis strategy", "mmupt.synthesis.strategies")
