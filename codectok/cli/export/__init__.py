"""Command line of `codectok export`: one module per format."""
