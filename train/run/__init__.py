"""Training runs: steps, validation, checkpoints, metrics and dry runs."""
