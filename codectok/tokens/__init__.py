"""Token tables: schema, writing, reading."""

from .reader import TokenTable, open_table

__all__ = ["TokenTable", "open_table"]
