"""Data sets as the trainer reads them: parquet files of prompts and images, with the ground truth in separate files.

The trainer never reads the ground truth; evaluations join it by `id`.
"""
