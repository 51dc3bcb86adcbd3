"""Synthesis strategies: prompts for a new question about the images of a row.

To add a strategy, add a module here with a function decorated by `STRATEGIES.register`; see docs/extending.md.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from mmupt.synthesis.source_rows import Parent
from verl_ext.registry import Registry


@dataclass(frozen=True)
class StrategyPrompt:
    """A request for a question.

    prompt: a key of `prompts` in the configuration, which names the file of the template.
    texts: values of the template's placeholders.
    template: the template to use if the config lacks the key.
    """

    prompt: str
    texts: Mapping[str, str] = field(default_factory=dict)
    template: str | None = None


# Maps a row and the model's majority answer to its question (None: not sampled, or a tie) to a request; None if the
# strategy does not apply to the row.
Strategy = Callable[[Parent, str | None], StrategyPrompt | None]
STRATEGIES: Registry[Strategy] = Registry("synthesis strategy", "mmupt.synthesis.strategies")
