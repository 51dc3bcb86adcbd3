"""Running a recipe: row checks, veRL, report."""
