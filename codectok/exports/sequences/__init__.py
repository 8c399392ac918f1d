"""Sequences: documents of token ids made from rows and texts, packed, mixed, and written for trainers."""
