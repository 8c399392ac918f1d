"""Training runs: preparation, steps, validation, checkpoints, metrics and dry runs."""
