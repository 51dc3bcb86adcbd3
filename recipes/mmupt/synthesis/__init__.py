"""A model writes questions about images: how it is asked, what of its responses is a question, and what is kept.

The command is `mmupt synthesize`; how a model generates is in `mmupt.evaluation.generation`. No ground
truth is read here.
"""
