"""Prepares data sets for the trainer: parquet files of prompts and images, with the ground truth in separate files.

The trainer never reads the ground truth; evaluations join it by `id`.
"""
