"""A model writes questions about images: how it is asked, what of its responses is a question, and what is kept.

The command is `mmupt synthesize`; how a model generates is in `mmupt.evaluation.generation`. No ground
truth is read here.
"""

from pathlib import Path

# Of the strategies and of the self-check, by the names that `prompts` of the configuration gives.
PROMPTS = Path(__file__).parent / "prompts"
