"""Names that tools give to the fields of a clip, the same for manifests, tars, Parquet and texts."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from codectok.audio.spans import Labels, Span
from codectok.errors import AudioError

from .fields import Fields

# In the order of precedence. Case, spaces, hyphens, underscores and brackets in a name do not matter.
NAMES: Mapping[str, tuple[str, ...]] = {
    "path": (
        "path", "audio_filepath", "audio_path", "file", "wav", "filename", "file_path", "audio_file", "audio_filename",
        "wav_filename", "wav_path", "wav_file", "wav_filepath", "clip", "clip_path", "audio",
    ),
    "start": (
        "start", "offset", "start_time", "begin", "begin_time", "segment_start", "start_seconds", "start_sec",
        "start_s",
    ),
    "end": ("end", "end_time", "stop", "stop_time", "segment_end", "end_seconds", "end_sec", "end_s"),
    "duration": ("duration", "duration_seconds", "duration_sec", "duration_s"),
    "start_ms": ("start_ms", "offset_ms", "begin_ms"),
    "end_ms": ("end_ms", "stop_ms"),
    "duration_ms": ("duration_ms",),
    "id": (
        "id", "utt_id", "segment_id", "utterance_id", "utt", "key", "utterance_name", "clip_id", "sample_id",
    ),
    "text": (
        "text", "transcription", "transcript", "sentence", "normalized_text", "text_normalized", "normalized",
        "normalized_transcription", "normalized_transcript", "normalized_sentence", "trans", "txt",
        "raw_text", "text_raw", "raw_transcription", "raw_transcript", "raw_sentence", "original_text",
        "text_original", "original_transcription", "wrd", "tgt_text",
    ),
    "speaker": ("speaker", "speaker_id", "speaker_name", "spk", "spk_id", "client_id", "reader_id", "spk_name"),
    "language": ("language", "lang", "locale", "language_code", "lang_code", "language_id", "lang_id"),
    "category": ("category",),
}  # fmt: skip
LANGUAGES, SPEAKERS, CATEGORIES = NAMES["language"], NAMES["speaker"], NAMES["category"]
TEXT_FIELDS = ("id", "text", "speaker", "language", "category")


def squeezed(name: str) -> str:
    """The letters and digits of a name, in lower case."""
    return "".join(character for character in name.casefold() if character.isalnum())


_PLACES = {
    squeezed(name): (field, place) for field, names in NAMES.items() for place, name in enumerate(names)
}  # fmt: skip


@lru_cache(maxsize=1024)
def columns_of(names: tuple[str, ...]) -> Mapping[str, tuple[str, ...]]:
    """The names among `names` of each known field, in the order of precedence."""
    found: dict[str, list[tuple[int, str]]] = {}
    for name in names:
        field, place = _PLACES.get(squeezed(name), ("", 0))
        if field:
            found.setdefault(field, []).append((place, name))
    return {field: tuple(name for _, name in sorted(places)) for field, places in found.items()}


def fields_of(values: Mapping[str, Any]) -> Fields:
    """The fields of a row or of a sample's JSON."""
    return Fields(values, columns_of(tuple(values)))


def described_by(values: Mapping[str, Any], where: str = "The row") -> tuple[Span, tuple[str, ...]]:
    """A whole clip with the id, text, labels and further fields in `values`, a sample's JSON or a row of Parquet.

    Args:
        values: of the clip, without its audio.
        where: the row or sample, for messages.

    Returns:
        The clip, and the names of the fields that cannot be kept.

    Raises:
        AudioError: the text or a label cannot be used ("unsupported").
    """
    fields = fields_of(values)
    try:
        found = {name: fields.text(name) for name in TEXT_FIELDS}
    except ValueError as error:
        raise AudioError(f"{where} cannot be used: {error}.", "unsupported") from None
    extra, left_out = fields.extra()
    labels = Labels(found["language"], found["speaker"], found["category"])
    return Span(id=found["id"], text=found["text"], labels=labels, extra=extra), left_out
