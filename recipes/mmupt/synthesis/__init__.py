"""Synthesis of questions about images: prompts, parsing of the model's responses, and filters.

The command is `mmupt synthesize`; `mmupt.evaluation.generation` generates. Nothing here reads a ground truth.
"""

from pathlib import Path

# Folder of the prompts that `prompts` of the configuration names.
PROMPTS = Path(__file__).parent / "prompts"
