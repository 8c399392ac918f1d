"""Tokenizers of transformers, extended with audio tokens."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from codectok import InputError
from codectok.exports.tokenizer import extend_tokenizer
from codectok.tokens.vocabulary import SPECIAL_TOKENS, Vocabulary
from tests.helpers.tokenizers import END_OF_TEXT, save_tokenizer

VOCABULARY = Vocabulary(50, n_groups=2, n_residuals=2, offset=320)
TURNS = ("<|im_start|>", "<|im_end|>")
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer with marks of turns and a chat template, as in Qwen's."""
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer = AutoTokenizer.from_pretrained(save_tokenizer(folder))
    tokenizer.add_special_tokens({"additional_special_tokens": list(TURNS)})
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return folder


def test_extended_tokenizer_has_audio_and_unused_tokens(base: Path, tmp_path: Path) -> None:
    before = AutoTokenizer.from_pretrained(base)
    n_unused = extend_tokenizer(base, tmp_path / "out", VOCABULARY)
    after = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert n_unused == 320 - len(before) > 0
    assert len(after) == VOCABULARY.end == 528
    assert after.convert_ids_to_tokens(list(range(len(before), 320))) == [f"<|unused{n}|>" for n in range(n_unused)]
    assert after.convert_ids_to_tokens(list(range(320, 528))) == list(VOCABULARY.tokens())
    for text in ("hello to the words", "Grüße", "<|im_start|>user\nHello<|im_end|>"):
        assert after(text).input_ids == before(text).input_ids
    text = "Hello<|beginofaudio|><|g0r0_320|><|g1r1_519|><|endofaudio|> you"
    ids = after(text).input_ids
    at = ids.index(520)
    assert ids[at : at + 4] == [520, 320, 519, 521]
    assert after.decode(ids) == text
    assert after.decode(ids, skip_special_tokens=True) == "Hello<|g0r0_320|><|g1r1_519|> you"


def test_extended_tokenizer_keeps_special_tokens_and_chat_template(base: Path, tmp_path: Path) -> None:
    before = AutoTokenizer.from_pretrained(base)
    extend_tokenizer(base, tmp_path / "out", VOCABULARY)
    after = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert after.all_special_tokens == [END_OF_TEXT, *TURNS, *SPECIAL_TOKENS]
    assert (after.eos_token_id, after.pad_token_id) == (before.eos_token_id, before.pad_token_id)
    turn = [{"role": "user", "content": "hello"}]
    assert after.apply_chat_template(turn, tokenize=False) == before.apply_chat_template(turn, tokenize=False)
    assert after.chat_template


def test_unused_tokens_skip_names_of_special_tokens(base: Path, tmp_path: Path) -> None:
    vocabulary = Vocabulary(5, offset=1000)
    extend_tokenizer(base, tmp_path / "out", vocabulary)
    after = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert after.convert_tokens_to_ids("<|unused600|>") == vocabulary.id_of("<|unused600|>") == 1012
    assert len(after) == vocabulary.end


def test_unsuitable_tokenizers_are_refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"up to id \d+, but the codes would begin at 100"):
        extend_tokenizer(base, tmp_path / "low", Vocabulary(50, offset=100))
    extend_tokenizer(base, tmp_path / "out", VOCABULARY)
    with pytest.raises(InputError, match=r"already has the token <\|beginofaudio\|>"):
        extend_tokenizer(tmp_path / "out", tmp_path / "again", Vocabulary(50, offset=600))
    with_codes = AutoTokenizer.from_pretrained(base)
    with_codes.add_tokens(["<|g0r0_700|>"])
    with_codes.save_pretrained(tmp_path / "codes")
    with pytest.raises(InputError, match=r"already has the token <\|g0r0_700\|>; give a tokenizer without"):
        extend_tokenizer(tmp_path / "codes", tmp_path / "again", Vocabulary(50, offset=900))
    with pytest.raises(InputError, match="holds no tokenizer"):
        extend_tokenizer(tmp_path, tmp_path / "none", VOCABULARY)
    with pytest.raises(InputError, match="no folder"):
        extend_tokenizer(tmp_path / "nowhere", tmp_path / "none", VOCABULARY)
    assert not (tmp_path / "low").exists()
