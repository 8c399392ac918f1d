"""Reads the description of the ids in a Parquet file of an export."""

from __future__ import annotations

import pyarrow.parquet as pq
from pydantic import ValidationError

from codectok.errors import VerificationError
from codectok.exports.sequences.parquet import SequencesMetadata
from codectok.tokens.table import METADATA_KEY


def description_of(file: pq.ParquetFile, where: str, form: str) -> SequencesMetadata:
    """Return the description of a file of the format `form`; raise `VerificationError` if it has none."""
    stored = (file.schema_arrow.metadata or {}).get(METADATA_KEY, b"")
    try:
        found = SequencesMetadata.model_validate_json(stored)
    except ValidationError:
        raise VerificationError(f"{where} has no description of its ids.") from None
    if found.format != form:
        raise VerificationError(f"{where} has the format {found.format}, not {form}.")
    return found
