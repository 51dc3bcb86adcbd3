"""Synthesis strategies: prompts for a new question about the images of a row.

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
    texts: values of the placeholders of the text.
    template: the text, if the config lacks the key.
    """

    prompt: str
    texts: Mapping[str, str] = field(default_factory=dict)
    template: str | None = None


# From a row and the model's own majority answer (None: not asked, or a tie) to the prompt; None if the strategy does
# not apply to the row.
Strategy = Callable[[Parent, str | None], StrategyPrompt | None]
STRATEGIES: Registry[Strategy] = Registry("synthesis strategy", "mmupt.synthesis.strategies")
