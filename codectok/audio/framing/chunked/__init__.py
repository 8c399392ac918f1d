"""Framing of files that consist of chunks: WAV, W64, AIFF and CAF."""
