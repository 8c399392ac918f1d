"""Numbers as text for people."""

from __future__ import annotations


def format_duration(seconds: float) -> str:
    """A duration in the unit that fits it: 35.0 s, 12.3 min, 4.56 h."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:,.2f} h"
