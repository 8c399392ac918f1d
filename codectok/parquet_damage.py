"""Exceptions of pyarrow for damaged Parquet files."""

from __future__ import annotations

import pyarrow as pa

# Names of columns and texts that are not UTF-8 are found when they are converted to Python, outside of Arrow.
PARQUET_DAMAGE = (pa.ArrowException, UnicodeDecodeError)
