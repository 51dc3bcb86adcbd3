"""Evaluation: responses of a model to a benchmark, what is right about them, and figures made of that.

The commands are in `mmupt.commands`; the rules of the benchmarks' authors are in `mmupt.benchmarks`.
"""
