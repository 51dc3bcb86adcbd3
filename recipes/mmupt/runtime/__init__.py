"""Before and after engines or a trainer run: preflight checks, environment, lock of the run folder, model export."""
