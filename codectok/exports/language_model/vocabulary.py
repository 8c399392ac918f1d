"""What the folder of a language model says of its vocabulary."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from codectok.config import load_mapping
from codectok.description import CodecDescription, codec_label
from codectok.errors import InputError
from codectok.exports.vocabulary import VocabularyFile

CONFIG_FILE = "config.json"
ROWS_KEY, AUDIO_KEY = "vocab_size", "codectok"


@dataclass(frozen=True)
class ModelVocabulary:
    """What a configuration says of the ids of its model.

    Attributes:
        rows: of the embedding.
        audio: the tokens of a codec among them; None for a model that has none yet.
    """

    rows: int
    audio: VocabularyFile | None = None

    @classmethod
    def of(cls, config: dict[str, Any], path: Path, or_else: str = "") -> ModelVocabulary:
        """The vocabulary that `config`, the contents of `path`, describes; `or_else` is what else may help.

        Raises:
            InputError: it does not say how many rows the embedding has, or its audio tokens are no such.
        """
        rows = rows_section(config).get(ROWS_KEY)
        if not isinstance(rows, int) or isinstance(rows, bool) or rows < 1:
            raise InputError(f"{path} does not say {ROWS_KEY}; write the rows of the embedding there{or_else}.")
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
                f"{path} says that audio tokens have ids up to {audio.end - 1}, but the embedding has {rows} rows;"
                " extend the model again."
            )
        return cls(rows, audio)

    @property
    def offset(self) -> int:
        """Id of the first code: of those that are there, else of the first one behind the rows."""
        return self.rows if self.audio is None else self.audio.offset

    def check_codec(self, codec: CodecDescription, folder: Path) -> None:
        """Refuse another codec than that of the audio tokens in `folder`, if it has any."""
        if self.audio is not None and self.audio.codec_fingerprint != codec.codec_fingerprint:
            own = codec_label(self.audio.codec_name, self.audio.codec_fingerprint)
            raise InputError(
                f"The model in {folder} has the tokens of another codec ({own}, not {codec.label}); give the model that"
                " was extended for this one, or one without audio tokens."
            )


def rows_section(config: dict[str, Any]) -> dict[str, Any]:
    """The part of a configuration whose `vocab_size` counts rows: that of the text model in it, or the whole.

    Where both have one they may differ, as PaliGemma's do: the embedding is the text model's.
    """
    nested = config.get("text_config")
    return nested if isinstance(nested, dict) and ROWS_KEY in nested else config


def read_model_vocabulary(folder: Path) -> ModelVocabulary:
    """The vocabulary of the language model in a folder; `InputError` if its `config.json` does not tell."""
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise InputError(f"{path} cannot be read; give the folder of a language model.")
    return ModelVocabulary.of(load_mapping(path), path, or_else=", or pass --offset with them")


def has_vocabulary(folder: Path) -> bool:
    """Whether a configuration lies in `folder` that says how many rows the embedding has."""
    path = folder / CONFIG_FILE
    return path.is_file() and ROWS_KEY in rows_section(load_mapping(path))
