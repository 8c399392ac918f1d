"""Codecs of the transformers library."""
