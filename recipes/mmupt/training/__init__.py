"""Running a recipe: checks before the start, veRL, export, report."""
