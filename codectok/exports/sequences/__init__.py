"""Sequences of token ids: documents are made from rows and texts, mixed, packed and written."""
