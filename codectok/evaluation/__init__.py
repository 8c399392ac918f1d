"""Evaluation: how close reconstructions are, how codebooks are used."""
