"""Data sets as the trainer reads them: parquet files of prompts and images, and the true answers in files apart.

The trainer is given the first and never the second: a true answer is joined by `id` where an evaluation needs it.
"""
