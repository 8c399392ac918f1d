"""Framing of MPEG audio, layers I to III."""
