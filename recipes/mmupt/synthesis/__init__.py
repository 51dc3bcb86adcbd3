"""A model writes questions about images: how it is asked, what of its responses is a question, and what is kept.

The entry point is `mmupt.synthesis.synthesize`; how a model generates is in
`mmupt.evaluation.generation`. No true answer is ever read here.
"""
