"""Amounts found in the files of an export, to be compared with its records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from codectok.errors import VerificationError
from codectok.pipelines.engine.output.records import UnitRecord


@dataclass(frozen=True)
class Amounts:
    """Number of tokens, and of documents by dataset; None if a file does not tell them."""

    tokens: int
    documents: Counter[str] | None


def compare_amounts(where: str, record: UnitRecord, found: Sequence[Amounts]) -> None:
    """Compare the amounts in the files of a unit with its record.

    Raises:
        VerificationError: they differ; the message begins with `where`.
    """
    tokens = sum(one.tokens for one in found)
    recorded = {dataset: counts.rows for dataset, counts in record.counts.items() if counts.rows}
    documents: Counter[str] = Counter()
    for one in found:
        documents.update(recorded if one.documents is None else one.documents)
    if documents != recorded:
        raise VerificationError(f"{where} has documents of other datasets than its record says.")
    if tokens != record.total.codes:
        raise VerificationError(
            f"{where} has {documents.total()} documents of {tokens} tokens, but its record says {record.total.rows} of"
            f" {record.total.codes}."
        )
