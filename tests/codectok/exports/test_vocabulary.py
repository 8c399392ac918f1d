"""Vocabulary files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from codectok import InputError
from codectok.exports.sequences.text_tokenizer import TextTokenizer
from codectok.exports.vocabulary import VocabularyFile, write_vocabulary
from codectok.tokens.vocabulary import SPECIAL_TOKENS, Vocabulary
from tests.helpers.tables import metadata
from tests.helpers.tokenizers import save_tokenizer

CODEC = metadata(codebook_size=64, n_codebooks=6).model_copy(update={"n_residuals": 3})


def test_vocabulary_files_list_every_token(tmp_path: Path) -> None:
    write_vocabulary(CODEC, tmp_path / "out", 1000)
    vocabulary = Vocabulary(64, 2, 3, 1000)
    tokens = json.loads((tmp_path / "out" / "tokens.json").read_text())
    assert tokens == {token: vocabulary.id_of(token) for token in vocabulary.tokens()}
    described = VocabularyFile.model_validate_json((tmp_path / "out" / "vocabulary.json").read_text())
    assert (described.offset, described.n_groups, described.n_residuals) == (1000, 2, 3)
    assert described.end == 1000 + 6 * 64 + 8
    assert described.special_tokens == {name: vocabulary.id_of(name) for name in SPECIAL_TOKENS}
    with pytest.raises(InputError, match="not empty"):
        write_vocabulary(CODEC, tmp_path / "out", 1000)


def test_special_tokens_keep_ids_of_tokenizer(tmp_path: Path) -> None:
    tokenizer = TextTokenizer(save_tokenizer(tmp_path / "tokenizer", ["<|sil|>"]))
    described = write_vocabulary(CODEC, tmp_path / "out", 1000, tokenizer)
    assert described.special_tokens["<|sil|>"] == tokenizer.known_tokens()["<|sil|>"] < 1000
    assert described.special_tokens["<|endofaudio|>"] == 1000 + 6 * 64 + 1
    assert described.end == 1000 + 6 * 64 + 8


def test_vocabulary_end_covers_special_tokens_of_tokenizer(tmp_path: Path) -> None:
    """As in a tokenizer that has other added tokens as well."""
    offset = len(TextTokenizer(save_tokenizer(tmp_path / "plain")).known_tokens())
    codec = metadata(codebook_size=3, n_codebooks=1)
    codes = [f"<|g0r0_{offset + code}|>" for code in range(3)]
    others = [f"<|other{number}|>" for number in range(9)]
    tokenizer = TextTokenizer(save_tokenizer(tmp_path / "tokenizer", [*codes, *others, *SPECIAL_TOKENS]))
    described = write_vocabulary(codec, tmp_path / "out", offset, tokenizer)
    assert described.end == 1 + max(described.special_tokens.values()) == offset + 3 + 9 + 8
