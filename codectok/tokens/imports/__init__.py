"""Codes that other programs wrote, read row by row."""
