"""Extends language models of `transformers` with embedding rows for audio tokens."""
