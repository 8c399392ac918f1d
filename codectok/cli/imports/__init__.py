"""Command line of `codectok import`: one module per format."""
