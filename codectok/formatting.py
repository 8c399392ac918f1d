"""Durations, sizes and counts as text for people."""

from __future__ import annotations


def format_duration(seconds: float) -> str:
    """Format a duration in the unit that suits it: 35.0 s, 12.3 min, 4.56 h."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:,.2f} h"


def megabytes(n_bytes: int) -> str:
    """Format a size in MB."""
    return f"{n_bytes / 1e6:,.2f} MB"


def counted(count: int, noun: str) -> str:
    """Format a count with its noun: 1 worker, 2 workers."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
