"""Opening the files of sources, on this machine or in a store, unless they have changed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import pyarrow.parquet as pq

from codectok.errors import InputError, first_line
from codectok.parquet_damage import PARQUET_DAMAGE
from codectok.sources.stores.files import open_url

from .source import Source


@contextmanager
def open_source(source: Source, buffering: int = -1) -> Iterator[BinaryIO]:
    """Open a file that has not changed since it was listed; `buffering` as for `open`, for local files.

    Raises:
        AudioError: the file has "changed".
    """
    source.check_unchanged()
    if source.url is None:
        with source.location.open("rb", buffering=buffering) as file:
            yield file
    else:
        with open_url(source.url) as file:
            yield file


@contextmanager
def open_parquet(source: Source) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file that has not changed since it was listed.

    Raises:
        InputError: the file is not Parquet, or is damaged where it is read while the context lasts.
    """
    try:
        with open_source(source) as opened, pq.ParquetFile(opened, pre_buffer=False) as file:
            yield file
    except (*PARQUET_DAMAGE, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # of the system; Arrow's own have no number
            raise
        reason = first_line(error)
        raise InputError(f"{source.where} cannot be read as Parquet: {reason}") from None
