"""Everything around a run of the trainer or an engine: preflight checks, environment, run-folder lock, model export."""
