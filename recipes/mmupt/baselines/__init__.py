"""The methods that MM-UPT is compared with in its paper, as far as they are no GRPO: what is trained on, and by what.

`run` goes through the stages of a method, `methods` has these, `selection` the rules by which they keep and drop.
docs/papers.md says whose method each is, and where ours departs from it.
"""
