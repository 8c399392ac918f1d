"""Token tables: schema, writing, reading."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .reader import TokenTable, open_table

if TYPE_CHECKING:
    from .dataset import TokenDataset

__all__ = ["TokenDataset", "TokenTable", "open_table"]


def __getattr__(name: str) -> Any:
    if name == "TokenDataset":  # imported on first use: it brings torch
        from .dataset import TokenDataset

        return TokenDataset
    raise AttributeError(f"module 'codectok.tokens' has no attribute {name!r}")
