"""Blind listening tests in the browser: preparation, a small server, and results."""
