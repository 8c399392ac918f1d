"""Command line: `codectok export`, one module per form."""
