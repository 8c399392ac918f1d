"""Choices that the command line offers and the library checks; imports nothing that takes time."""

from __future__ import annotations

from enum import StrEnum

from codectok.errors import InputError


class Packing(StrEnum):
    """How documents become sequences."""

    NONE = "none"
    NEXT_FIT = "next-fit"
    FIRST_FIT = "first-fit"


class TooLong(StrEnum):
    """How documents longer than a sequence are handled."""

    DROP = "drop"
    TRUNCATE = "truncate"
    SPLIT = "split"
    KEEP = "keep"


class Until(StrEnum):
    """Where a mixture ends: with its first or its last source."""

    FIRST = "first"
    LAST = "last"


class Loss(StrEnum):
    """Positions of a document that a language model learns: all, its audio, or its answer."""

    ALL = "all"
    AUDIO = "audio"
    ANSWER = "answer"


class ChatFormat(StrEnum):
    """Format of conversations: sequences in Parquet, or Megatron's indexed datasets."""

    SEQUENCES = "sequences"
    MEGATRON = "megatron"


class AudioKey(StrEnum):
    """Column of a token table by which conversations name audio."""

    ID = "id"
    SOURCE = "source"


class UnittsTask(StrEnum):
    """Contents of a UniTTS dialogue: audio alone, text before audio, or audio before text."""

    AUDIO = "audio"
    TTS = "tts"
    ASR = "asr"


class UnittsStyle(StrEnum):
    """Format of a UniTTS export: dialogues in Parquet, or a `.audio` file per row."""

    PARQUET = "parquet"
    AUDIO_JSON = "audio-json"


class CodesForm(StrEnum):
    """Format of exported codes: Parquet with `audio_codes`, a `.npy` file per row, or JSON lines."""

    AUDIO_CODES = "audio-codes"
    NPY = "npy"
    JSONL = "jsonl"


class RowStart(StrEnum):
    """How embedding rows of codes are initialized."""

    AUTO = "auto"
    CODEBOOK = "codebook"
    PROJECTION = "projection"
    RANDOM = "random"


def check_choice(value: str, choices: type[StrEnum]) -> None:
    """Raise `InputError` if `value` is not one of `choices`."""
    known = [choice.value for choice in choices]
    if value not in known:
        raise InputError(f"There is no {value!r}; choose one of {', '.join(known)}.")
