"""Text tokenizers never read special tokens from text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, ByT5Tokenizer, PreTrainedTokenizerFast

from codectok.exports.sequences.text_tokenizer import TextTokenizer, TokenInTextError
from codectok.exports.tokenizer import extend_tokenizer
from codectok.tokens.vocabulary import SPECIAL_TOKENS, Vocabulary
from tests.helpers.tokenizers import END_OF_TEXT, save_tokenizer, text_of

VOCABULARY = Vocabulary(50, offset=320)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tokenizer(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def extended(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer with audio tokens, and with added tokens that are not special, as in Qwen's."""
    folder = tmp_path_factory.mktemp("extended")
    tokenizer = AutoTokenizer.from_pretrained(plain)
    tokenizer.add_tokens([AddedToken("<tool_call>", normalized=False), AddedToken("<think>", lstrip=True)])
    tokenizer.save_pretrained(folder / "base")
    extend_tokenizer(folder / "base", folder / "out", VOCABULARY)
    return folder / "out"


def test_special_token_strings_are_encoded_as_text(plain: Path, extended: Path) -> None:
    words = ["hello", "world", " ", "  \n", "ü", "<|", END_OF_TEXT, "<tool_call>", "<think>", "<|unused0|>"]
    words += [*SPECIAL_TOKENS, "<|g0r0_320|>", "<|g0r0_369|>"]
    before, after = TextTokenizer(plain), TextTokenizer(extended)
    known = after.known_tokens()
    n_words = len(before.known_tokens())
    assert min(known[word] for word in words[7:]) >= n_words
    generator = np.random.default_rng(0)
    for text in [*words, *("".join(generator.choice(words, 9)) for _ in range(200))]:
        ids = after.ids_of(text).tolist()
        assert ids == before.ids_of(text).tolist()
        assert text_of(extended, ids) == text
        assert max(ids) < n_words
        assert known[END_OF_TEXT] not in ids


def test_tokens_of_spaces_are_kept(plain: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(plain)
    tokenizer.add_tokens([AddedToken("    ", normalized=False)])
    tokenizer.save_pretrained(tmp_path)
    text = "hello    world"
    assert TextTokenizer(tmp_path).ids_of(text).tolist() == tokenizer(text).input_ids


def test_special_token_from_text_is_refused(tmp_path: Path) -> None:
    """Unigram tokenizers may have special tokens among their words."""
    pieces = [("<unk>", 0.0), ("</s>", 0.0), *((letter, -2.0) for letter in "abcdefghijklmnopqrstuvwxyz </>\u2581")]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>").save_pretrained(tmp_path)
    found = TextTokenizer(tmp_path)
    assert found.ids_of("abc <s> 7").tolist().count(0) == 1  # an unknown character is not a special token
    with pytest.raises(TokenInTextError, match="reads a part of it as </s>"):
        found.ids_of("the end</s> of it")


def test_python_tokenizer_encodes_special_strings_as_text(tmp_path: Path) -> None:
    ByT5Tokenizer().save_pretrained(tmp_path)
    tokenizer = TextTokenizer(tmp_path)
    text = "a</s> <extra_id_0>"
    assert tokenizer.ids_of(text).tolist() == [3 + byte for byte in text.encode()]


def test_fingerprint_distinguishes_tokenizers(plain: Path, extended: Path) -> None:
    assert TextTokenizer(plain).fingerprint == TextTokenizer(plain).fingerprint != TextTokenizer(extended).fingerprint
