"""Framing of FLAC."""
