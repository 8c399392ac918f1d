"""Vocabulary of a language model, from the configuration in its folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from codectok.config import load_mapping
from codectok.description import CodecDescription, codec_label
from codectok.errors import InputError
from codectok.exports.vocabulary import VocabularyFile
from codectok.tokens.layouts.layout import TokenLayout
from codectok.tokens.layouts.record import check_same_layout
from codectok.tokens.vocabulary import LARGEST_ID

CONFIG_FILE = "config.json"
ROWS_KEY, AUDIO_KEY = "vocab_size", "codectok"


@dataclass(frozen=True)
class ModelVocabulary:
    """Ids of a language model.

    Attributes:
        rows: number of rows of the embedding.
        audio: audio tokens among them; None for a model without audio tokens.
    """

    rows: int
    audio: VocabularyFile | None = None

    @classmethod
    def of(cls, config: dict[str, Any], path: Path, or_else: str = "") -> ModelVocabulary:
        """Read the vocabulary from a configuration.

        Args:
            config: contents of `path`.
            path: the configuration, for messages.
            or_else: another remedy, for the message about a missing number of rows.

        Raises:
            InputError: the number of rows is missing, or the description of audio tokens is not valid.
        """
        rows = rows_section(config).get(ROWS_KEY)
        if isinstance(rows, int) and rows > LARGEST_ID:
            raise InputError(f"{path}: {ROWS_KEY} is {rows:,}, but ids go to {LARGEST_ID:,} at most.")
        if not isinstance(rows, int) or isinstance(rows, bool) or rows < 1:
            raise InputError(f"{path} has no {ROWS_KEY}; write the number of rows of the embedding there{or_else}.")
        if AUDIO_KEY not in config:
            return cls(rows)
        try:
            audio = VocabularyFile.model_validate(config[AUDIO_KEY])
        except ValidationError:
            raise InputError(
                f"{path} has a key {AUDIO_KEY!r} that this version of codectok does not understand; extend the model"
                " again."
            ) from None
        if audio.end > rows:
            raise InputError(
                f"{path} describes audio tokens with ids up to {audio.end - 1}, but the embedding has {rows} rows;"
                " extend the model again."
            )
        return cls(rows, audio)

    @property
    def offset(self) -> int:
        """Id of the first code: the model's if it has audio tokens, else the first id behind its rows."""
        return self.rows if self.audio is None else self.audio.offset

    def check_codec(self, codec: CodecDescription, folder: Path) -> None:
        """Raise `InputError` if the model in `folder` has the audio tokens of another codec."""
        if self.audio is not None and self.audio.codec_fingerprint != codec.codec_fingerprint:
            own = codec_label(self.audio.codec_name, self.audio.codec_fingerprint)
            raise InputError(
                f"The model in {folder} has the tokens of another codec ({own}, not {codec.label}); give the model that"
                " was extended for this one, or one without audio tokens."
            )

    def check_layout(self, layout: TokenLayout, folder: Path) -> None:
        """Raise `InputError` if the model in `folder` has audio tokens of another layout."""
        if self.audio is not None:
            check_same_layout(self.audio.layout, layout, f"The model in {folder}")


def rows_section(config: dict[str, Any]) -> dict[str, Any]:
    """Return the section of a configuration whose `vocab_size` counts rows: the text model's, or the whole.

    If both have one, they may differ, as in PaliGemma; the text model owns the embedding.
    """
    nested = config.get("text_config")
    return nested if isinstance(nested, dict) and ROWS_KEY in nested else config


def read_model_vocabulary(folder: Path) -> ModelVocabulary:
    """Read the vocabulary of the language model in a folder; raise `InputError` if `config.json` lacks it."""
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise InputError(f"{path} is missing; give the folder of a language model.")
    return ModelVocabulary.of(load_mapping(path), path, or_else=", or pass --offset with it")


def has_vocabulary(folder: Path) -> bool:
    """Return True if `folder` holds a configuration with the number of rows of the embedding."""
    path = folder / CONFIG_FILE
    return path.is_file() and ROWS_KEY in rows_section(load_mapping(path))
