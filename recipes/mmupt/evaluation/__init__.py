"""Evaluation: generates a model's responses to benchmarks, judges them, and computes and compares scores.

The commands are in `mmupt.commands`; the rules of the benchmarks' authors are in `mmupt.benchmarks`.
"""
