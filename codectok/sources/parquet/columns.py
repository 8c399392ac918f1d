"""Columns of a Parquet file that may hold audio, by their types, names and features."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

Form = Literal["file", "bytes", "samples", "path", "files"]
"""Form of a value: a struct with bytes or path of a file, bytes, decoded samples, a path, or a list of files."""

AUDIO = "audio"
_AUDIO_WORDS = "audio wav wave waveform speech sound recording voice flac mp3 ogg opus m4a aac pcm"
AUDIO_WORDS = frozenset(_AUDIO_WORDS.split())
PATH_NAMES = frozenset(["path", "file", "filename", "file_name", "filepath", "file_path"])
# With one of these words in its name, a column describes audio and does not hold it.
_OTHER_WORDS = """
    image img picture photo video spectrogram mel embedding embeddings feature features token tokens code codes text
    transcript transcription caption label id duration length rate mask hash md5 sha256
"""
OTHER_WORDS = frozenset(_OTHER_WORDS.split())
BYTES_FIELD, PATH_FIELD, SAMPLES_FIELD = "bytes", "path", "array"
RATE_NAMES = ("sampling_rate", "sample_rate", "samplerate", "sr")
FEATURES_KEY = b"huggingface"
AUDIO_FEATURE = "Audio"
# Features of the library datasets whose columns are structs of bytes and path, like audio.
OTHER_FEATURES = frozenset(["Image", "Video", "Pdf", "Nifti", "Json"])
WORD = re.compile(r"[A-Z]?[a-z]+\d*|[A-Z]+(?![a-z])\d*|\d+")


@dataclass(frozen=True)
class Column:
    """A column, or a field of a struct, that may hold audio.

    Attributes:
        path: name of the column, then of each field down to this one.
        form: form of its values.
        feature: name of its feature in the metadata of the library datasets; "" without metadata.
        sampling_rate: from that feature; None if unknown.
    """

    path: tuple[str, ...]
    form: Form
    feature: str = ""
    sampling_rate: object = None

    @property
    def name(self) -> str:
        """Names of the path with dots between them, as Parquet writes them."""
        return ".".join(self.path)

    @property
    def is_named(self) -> bool:
        """True if the name says that the column holds audio."""
        words = {word.lower() for word in WORD.findall(self.name)}
        return not AUDIO_WORDS.isdisjoint(words) and OTHER_WORDS.isdisjoint(words)

    @property
    def is_named_path(self) -> bool:
        """True if the column is a path by its name."""
        return self.path[-1].lower() in PATH_NAMES


def columns_of(schema: pa.Schema) -> list[Column]:
    """Return all columns, and fields of structs, whose type may hold audio, in the order of the schema."""
    features = _features(schema)
    return [column for field in schema for column in _columns_in(field, (), features.get(field.name))]


def plain_type(kind: pa.DataType) -> pa.DataType:
    """Return the type of the values of a dictionary or an extension type; other types are returned as they are."""
    while isinstance(kind, pa.DictionaryType | pa.BaseExtensionType):
        kind = kind.value_type if isinstance(kind, pa.DictionaryType) else kind.storage_type
    return kind


def holds_binary(kind: pa.DataType) -> bool:
    """Return True if a value of the type holds bytes, in any depth."""
    kind = plain_type(kind)
    if _is_list(kind):
        return holds_binary(kind.value_type)
    if pa.types.is_struct(kind):
        return any(holds_binary(kind.field(i).type) for i in range(kind.num_fields))
    if pa.types.is_map(kind):
        return holds_binary(kind.item_type)
    return _is_binary(kind)


def _columns_in(field: pa.Field, above: tuple[str, ...], feature: Any) -> Iterator[Column]:
    path, kind = (*above, field.name), plain_type(field.type)
    form = _form_of(kind)
    described = feature if isinstance(feature, Mapping) else {}
    name = described.get("_type")
    if form is not None:
        yield Column(path, form, name if isinstance(name, str) else "", described.get("sampling_rate"))
    elif pa.types.is_struct(kind):
        for i in range(kind.num_fields):
            inner = kind.field(i)
            yield from _columns_in(inner, path, described.get(inner.name))


def _form_of(kind: pa.DataType) -> Form | None:
    if pa.types.is_struct(kind):
        fields = {kind.field(i).name: plain_type(kind.field(i).type) for i in range(kind.num_fields)}
        if BYTES_FIELD in fields and _is_binary(fields[BYTES_FIELD]):
            return "file"
        if SAMPLES_FIELD in fields and _holds_numbers(fields[SAMPLES_FIELD]):
            return "samples"
        only_path = fields.keys() <= {PATH_FIELD, BYTES_FIELD, SAMPLES_FIELD, *RATE_NAMES}
        return "file" if only_path and PATH_FIELD in fields and _is_text(fields[PATH_FIELD]) else None
    if _is_binary(kind):
        return "bytes"
    if _is_text(kind):
        return "path"
    if _is_list(kind):
        inner = plain_type(kind.value_type)
        if _form_of(inner) in ("file", "bytes") or (pa.types.is_struct(inner) and _form_of(inner) == "samples"):
            return "files"
        return "samples" if _holds_numbers(kind) else None
    return None


def _is_binary(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(
        types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_binary_view(kind)
        or types.is_fixed_size_binary(kind)
    )


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_list(kind: pa.DataType) -> bool:
    types = pa.types
    plain = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    return bool(plain or types.is_list_view(kind) or types.is_large_list_view(kind))


def _holds_numbers(kind: pa.DataType, depth: int = 2) -> bool:
    """Return True for a list of numbers, or a list of such lists, one for each channel."""
    if not _is_list(kind):
        return False
    inner = plain_type(kind.value_type)
    number = pa.types.is_floating(inner) or pa.types.is_integer(inner)
    return bool(number or (depth > 1 and _holds_numbers(inner, depth - 1)))


def _features(schema: pa.Schema) -> Mapping[str, Any]:
    """Return the features that the library datasets stores in the metadata of a file."""
    try:
        features = json.loads((schema.metadata or {})[FEATURES_KEY])["info"]["features"]
    except (KeyError, TypeError, ValueError):
        return {}
    return features if isinstance(features, dict) else {}
