"""Vocabulary of a language model, from its configuration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from codectok import InputError
from codectok.exports.language_model.vocabulary import (
    ModelVocabulary,
    has_vocabulary,
    read_model_vocabulary,
    rows_section,
)
from codectok.exports.vocabulary import VocabularyFile
from codectok.tokens.vocabulary import Vocabulary
from tests.helpers.tables import metadata

CODEC = metadata(codebook_size=64, n_codebooks=1)


def model(folder: Path, config: dict[str, Any]) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def extended(rows: int, offset: int = 500) -> dict[str, Any]:
    audio = VocabularyFile.of(CODEC, Vocabulary(64, offset=offset), {})
    return {"vocab_size": rows, "codectok": audio.model_dump()}


def test_vocab_size_is_read_from_config_or_text_config(tmp_path: Path) -> None:
    plain: dict[str, Any] = {"vocab_size": 152_064, "text_config": {}}
    nested: dict[str, Any] = {"text_config": {"vocab_size": 7}}
    both: dict[str, Any] = {"vocab_size": 257_152, "text_config": {"vocab_size": 257_216}}  # PaliGemma's
    for name, config, rows in (("plain", plain, 152_064), ("nested", nested, 7), ("both", both, 257_216)):
        folder = model(tmp_path / name, config)
        assert read_model_vocabulary(folder) == ModelVocabulary(rows)
        assert read_model_vocabulary(folder).offset == rows
        assert has_vocabulary(folder)
        rows_section(config)["vocab_size"] = 9
        assert ModelVocabulary.of(config, folder).rows == 9
    for name, config in (("none", {}), ("word", {"vocab_size": "7"}), ("zero", {"vocab_size": 0})):
        with pytest.raises(InputError, match="has no vocab_size"):
            read_model_vocabulary(model(tmp_path / name, config))
    with pytest.raises(InputError, match="rows of the embedding there, or pass --offset"):
        read_model_vocabulary(tmp_path / "none")
    with pytest.raises(InputError, match=r"rows of the embedding there\.$"):
        ModelVocabulary.of({}, tmp_path)
    assert not has_vocabulary(tmp_path / "none")
    assert not has_vocabulary(tmp_path)
    with pytest.raises(InputError, match="is missing"):
        read_model_vocabulary(tmp_path)


def test_offset_of_extended_model_is_for_its_codec(tmp_path: Path) -> None:
    found = read_model_vocabulary(model(tmp_path / "extended", extended(600)))
    assert (found.rows, found.offset) == (600, 500)
    found.check_codec(CODEC, tmp_path)
    ModelVocabulary(7).check_codec(CODEC, tmp_path)
    other = CODEC.model_copy(update={"codec_fingerprint": "0123456789abcdef"})
    with pytest.raises(InputError, match=r"tokens of another codec \(nano f, not nano 0123456789ab\)"):
        found.check_codec(other, tmp_path)


def test_invalid_audio_tokens_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="ids up to 571, but the embedding has 571 rows"):
        read_model_vocabulary(model(tmp_path / "cut", extended(571)))
    with pytest.raises(InputError, match="does not understand"):
        read_model_vocabulary(model(tmp_path / "strange", {"vocab_size": 7, "codectok": {"offset": 3}}))
