"""Measures of a clip: log-mel, spectrum, quality, and speech."""
