"""Recipes: what it takes to run one published method end to end."""
