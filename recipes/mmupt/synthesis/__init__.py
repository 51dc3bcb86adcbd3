"""A model writes questions about images: prompts, parsing of its responses, and filters.

The command is `mmupt synthesize`; `mmupt.evaluation.generation` generates. No ground truth is read here.
"""

from pathlib import Path

# Of the strategies and of the self-check, by the names that `prompts` of the configuration gives.
PROMPTS = Path(__file__).parent / "prompts"
