"""Differences between tables whose codes are combined, and one description of them all."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from codectok.errors import InputError

if TYPE_CHECKING:
    from .table import TableMetadata

# Value of a text field in which the codes of a table differ; `TableMetadata.mixed` lists its values.
MIXED = "mixed"
# Codes of another codec have another meaning.
CODEC_FIELDS = (
    "codec_fingerprint", "codebook_size", "n_codebooks", "n_residuals", "frame_rate", "frame_rounding", "sample_rate",
)  # fmt: skip
# Codes of the same codec can differ where two codes are almost equally near.
ARITHMETIC_FIELDS = ("dtype", "tf32", "device", "kernels", "pack_frames", "batch_seconds")
VERSION_FIELDS = ("torch", "transformers")
_LABELS = {
    "codec_fingerprint": "codec",
    "codebook_size": "codebook size",
    "n_codebooks": "codes per frame",
    "n_residuals": "residual codebooks",
    "frame_rate": "frame rate",
    "frame_rounding": "rounding of frames",
    "sample_rate": "sample rate",
    "tf32": "TF32",
    "torch": "version of torch",
    "transformers": "version of transformers",
}

log = logging.getLogger(__name__)

Described = tuple[str, "TableMetadata"]
"""Name of a file for messages, and its metadata."""


def merge_metadata(found: Iterable[Described], allow_mixed: bool = False) -> TableMetadata:
    """Describe codes of several files as one table.

    Args:
        found: the files, at least one.
        allow_mixed: accept codes of one codec that were computed in another arithmetic or on another device.

    Returns:
        The metadata of the first file. Fields in which files differ are unset, or "mixed", and listed in `mixed`. If
        versions of libraries alone differ, a warning is logged.

    Raises:
        InputError: the files hold codes of different codecs, or are mixed and `allow_mixed` is False.
    """
    files = list(found)
    refuse_different(files, CODEC_FIELDS)
    if not allow_mixed:
        refuse_different(files, ARITHMETIC_FIELDS)
    warn_of_versions(files)
    return join_metadata([metadata for _, metadata in files])


def join_metadata(found: Sequence[TableMetadata]) -> TableMetadata:
    """Describe codes of one codec as one table, without a check or warning, see `merge_metadata`."""
    first = found[0]
    update: dict[str, Any] = {}
    mixed: dict[str, tuple[str, ...]] = {}
    for field in (*ARITHMETIC_FIELDS, *VERSION_FIELDS):
        values = {one for metadata in found for one in _values(metadata, field)}
        if len(values) > 1:
            mixed[field] = tuple(sorted(values))
            update[field] = {"dtype": MIXED, "device": MIXED, "kernels": MIXED, "tf32": True}.get(field)
        else:
            update[field] = getattr(next((metadata for metadata in found if _values(metadata, field)), first), field)
    for field in (*VERSION_FIELDS, "revision"):
        if any(getattr(metadata, field) != getattr(first, field) for metadata in found):
            update[field] = None
    for field in ("n_residuals", "weights_sha256"):  # files of earlier versions lack them
        known = (getattr(metadata, field) for metadata in found)
        update[field] = next((value for value in known if value is not None), None)
    return first.model_copy(update={**update, "mixed": mixed})


def refuse_different(files: Sequence[Described], fields: Sequence[str] = (*CODEC_FIELDS, *ARITHMETIC_FIELDS)) -> None:
    """Raise an `InputError` that names the fields in which two of `files` differ, among `fields`."""
    for field in fields:
        pair = _first_pair(files, field)
        if pair is None:
            continue
        named = differences(pair[0][1], pair[1][1], fields)
        both = f"{pair[0][0]} and {pair[1][0]} differ in {', '.join(named)}"
        if field in CODEC_FIELDS:
            raise InputError(f"{both}; keep codes of different codecs apart.")
        raise InputError(f"{both}; keep their codes apart, or pass --allow-mixed (allow_mixed=True) to mix them.")


def refuse_uncovered(metadata: TableMetadata, where: str, found: TableMetadata) -> None:
    """Raise an `InputError` if a file has a codec, arithmetic or device that a table's `metadata` does not name."""
    uncovered = [
        field
        for field in (*CODEC_FIELDS, *ARITHMETIC_FIELDS)
        if _values(metadata, field) and not set(_values(found, field)) <= set(_values(metadata, field))
    ]
    if uncovered:
        refuse_different([("The other files", metadata), (where, found)], uncovered)


def warn_of_versions(files: Sequence[Described]) -> None:
    """Warn, once, if `files` were computed by different versions of libraries."""
    note = note_of_versions(files)
    if note is not None:
        _warn_once(note)


def note_of_versions(files: Sequence[Described]) -> str | None:
    """Return a sentence about the versions of libraries in which two of `files` differ; None if they agree."""
    for field in VERSION_FIELDS:
        pair = _first_pair(files, field)
        if pair is not None:
            named = differences(pair[0][1], pair[1][1], VERSION_FIELDS)
            return f"{pair[0][0]} and {pair[1][0]} differ in {', '.join(named)}; a few codes may differ, too."
    return None


def arithmetic_of(metadata: TableMetadata) -> dict[str, list[str]]:
    """Return the values of each field of arithmetic and device in which the codes of a table differ."""
    return {field: list(values) for field, values in metadata.mixed.items() if field in ARITHMETIC_FIELDS}


def differences(one: TableMetadata, other: TableMetadata, fields: Sequence[str]) -> list[str]:
    """Return the fields in which two descriptions differ, as in "dtype: float32 and bfloat16"; unknown ones do not."""
    named = []
    for field in fields:
        values = [_values(metadata, field) for metadata in (one, other)]
        if all(values) and values[0] != values[1]:
            named.append(f"{_LABELS.get(field, field)}: {' and '.join(_words(m, field) for m in (one, other))}")
    return named


def _first_pair(files: Sequence[Described], field: str) -> tuple[Described, Described] | None:
    """Return the first file that knows a field, and the first one that differs in it."""
    known = ((file, values) for file in files if (values := _values(file[1], field)))
    first = next(known, None)
    if first is None:
        return None
    return next(((first[0], file) for file, values in known if values != first[1]), None)


def _values(metadata: TableMetadata, field: str) -> tuple[str, ...]:
    """Return the values of a field in words: none if unknown, several if the table is mixed."""
    if field in metadata.mixed:
        return metadata.mixed[field]
    value = getattr(metadata, field)
    if field == "pack_frames" and metadata.device == "cpu":  # it affects the bits on GPUs only
        return ()
    if field == "tf32":
        value = "on" if value or metadata.dtype == "tf32" else "off"  # earlier versions recorded dtype alone
    return () if value is None else (str(value),)


def _words(metadata: TableMetadata, field: str) -> str:
    if field == "codec_fingerprint":
        return metadata.label
    values = _values(metadata, field)
    return values[0] if len(values) == 1 else f"{MIXED} ({', '.join(values)})"


@cache
def _warn_once(message: str) -> None:
    log.warning("%s", message)
