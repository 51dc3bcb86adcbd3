"""Evaluation: responses of a model to a benchmark, what is right about them, and figures made of that.

The entry points `mmupt.evaluation.evaluate`, `score` and `compare` are thin around it; the rules of the benchmarks'
authors are in `mmupt.benchmarks`.
"""
