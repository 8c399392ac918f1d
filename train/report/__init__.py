"""HTML report of a training run, from its files."""
