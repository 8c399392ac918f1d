"""Rows of a manifest in CSV or TSV."""

from __future__ import annotations

import csv
from typing import TextIO

from .lines import Lines


def table_rows(file: TextIO, name: str) -> Lines:
    """Yield the rows of `file` with the numbers of their last lines."""
    reader = csv.DictReader(file, delimiter="\t" if ".tsv" in name.lower() else ",", strict=True)
    for values in reader:
        yield reader.line_num, {key: value for key, value in values.items() if key is not None}
