"""Audio tokens beside and in rows of an embedding that have no token."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, PhiConfig

from codectok import Codec, InputError
from codectok.config import VectorQuantizerConfig
from codectok.exports.choices import RowStart
from codectok.exports.language_model.embedding_rows import RowOptions
from codectok.exports.language_model.extend import extend_language_model
from codectok.exports.language_model.vocabulary import read_model_vocabulary
from codectok.tokens.layouts.layout import TokenLayout
from codectok.tokens.layouts.loading import load_layout
from tests.helpers.codecs import NANO
from tests.helpers.language_models import ROWS, TOKENS, load, matrices, output_of, qwen2, remove_tokenizer, write_model

VOCABULARY_TENSORS = ("model.embed_tokens.weight", "lm_head.weight", "lm_head.bias")
FIXED = TokenLayout(name="fixed", kind="ids", first_id=290, token="<a{number}>")


def codec_of(codebook_size: int, codebook_dim: int = 64) -> Codec:
    quantizer = VectorQuantizerConfig(codebook_size=codebook_size, codebook_dim=codebook_dim)
    return Codec.from_config(NANO.model_copy(update={"quantizer": quantizer}), seed=1, device="cpu")


@pytest.fixture(scope="module")
def codec() -> Codec:
    return codec_of(100)


def set_padding(folder: Path, value: float) -> None:
    """Fill the rows without a token."""
    tensors = load_file(folder / "model.safetensors")
    for name in VOCABULARY_TENSORS:
        if name in tensors:
            tensors[name][TOKENS:] = value
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def set_config(folder: Path, changes: Mapping[str, Any], name: str = "config.json") -> None:
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | dict(changes)))


@pytest.mark.parametrize("start", [RowStart.PROJECTION, RowStart.RANDOM])
def test_new_rows_do_not_depend_on_padding(start: RowStart, codec: Codec, tmp_path: Path) -> None:
    """Padding is untrained, or even not a number: means and scales are those of rows with a token."""
    made = []
    for number, value in enumerate((0.0, 1e4, float("nan"))):
        source, output = tmp_path / f"lm-{number}", tmp_path / f"out-{number}"
        write_model(source, qwen2())
        set_padding(source, value)
        extend_language_model(source, output, codec, options=RowOptions(start))
        made.append(matrices(load(output)))
        # The padding itself stays.
        expected = torch.full((ROWS - TOKENS, 64), value)
        torch.testing.assert_close(made[-1][0][TOKENS:ROWS], expected, rtol=0, atol=0, equal_nan=True)
    for embedding, output_rows in made:
        assert torch.equal(embedding[ROWS:], made[0][0][ROWS:])
        assert torch.equal(output_rows[ROWS:], made[0][1][ROWS:])


def test_codes_move_into_padding(codec: Codec, tmp_path: Path) -> None:
    write_model(tmp_path / "lm", PhiConfig(**qwen2().to_diff_dict() | {"model_type": "phi"}))
    set_padding(tmp_path / "lm", float("nan"))
    done = extend_language_model(tmp_path / "lm", tmp_path / "out", codec, "tokens")
    assert (done.vocabulary.offset, done.rows, done.unused_tokens) == (TOKENS, TOKENS + 108, 0)
    assert (done.text_rows, done.reused_rows) == (ROWS, ROWS - TOKENS)
    before, after = load(tmp_path / "lm"), load(tmp_path / "out")
    for old, new in zip(matrices(before), matrices(after), strict=True):
        assert torch.equal(new[:TOKENS], old[:TOKENS])
        assert torch.equal(new[TOKENS : TOKENS + 100], codec.codebooks[0] / 100)
        torch.testing.assert_close(new[TOKENS + 100 :], old[:TOKENS].mean(0).expand(8, -1), rtol=1e-5, atol=1e-7)
    bias, old_bias = output_of(after).bias, output_of(before).bias
    assert torch.equal(bias[:TOKENS], old_bias[:TOKENS])
    torch.testing.assert_close(bias[TOKENS:], old_bias[:TOKENS].mean().expand(108))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert len(tokenizer) == after.config.vocab_size == done.rows
    assert tokenizer.convert_tokens_to_ids(f"<|g0r0_{TOKENS}|>") == TOKENS
    found = read_model_vocabulary(tmp_path / "out")
    assert (found.offset, found.rows) == (TOKENS, done.rows)
    extend_language_model(tmp_path / "lm", tmp_path / "number", codec, TOKENS)
    for path in (tmp_path / "out").iterdir():
        assert path.read_bytes() == (tmp_path / "number" / path.name).read_bytes()


def test_padding_before_the_codes_stays(codec: Codec, tmp_path: Path) -> None:
    write_model(tmp_path / "lm", qwen2())
    set_padding(tmp_path / "lm", 7.0)
    done = extend_language_model(tmp_path / "lm", tmp_path / "out", codec, TOKENS + 5)
    assert (done.unused_tokens, done.reused_rows) == (5, ROWS - TOKENS - 5)
    for rows in matrices(load(tmp_path / "out")):
        assert torch.equal(rows[TOKENS : TOKENS + 5], torch.full((5, 64), 7.0))
        assert torch.equal(rows[TOKENS + 5 : TOKENS + 105], codec.codebooks[0] / 100)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.convert_ids_to_tokens(TOKENS + 4) == "<|unused4|>"


@pytest.mark.parametrize("tied", [False, True])
def test_model_keeps_its_size_if_padding_suffices(tied: bool, tmp_path: Path) -> None:
    """Remaining padding becomes the mean, so that tokens added later begin there."""
    write_model(tmp_path / "lm", qwen2(tied=tied, layers=4), torch.bfloat16, shard_size="60KB")
    small = codec_of(16)
    done = extend_language_model(tmp_path / "lm", tmp_path / "out", small, "tokens")
    end = TOKENS + 16 + 8
    assert (done.rows, done.vocabulary.end, done.reused_rows) == (ROWS, end, 24)
    before, after = load(tmp_path / "lm"), load(tmp_path / "out")
    assert after.num_parameters() == before.num_parameters()
    index = "model.safetensors.index.json"
    assert json.loads((tmp_path / "out" / index).read_text()) == json.loads((tmp_path / "lm" / index).read_text())
    for old, new in zip(matrices(before), matrices(after), strict=True):
        assert len(new) == ROWS
        assert torch.equal(new[:TOKENS], old[:TOKENS])
        mean = old[:TOKENS].float().mean(0).expand(ROWS - end, -1)
        torch.testing.assert_close(new[end:].float(), mean, rtol=1e-2, atol=1e-5)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    tokenizer.add_tokens(["<|late|>"])
    assert tokenizer.convert_tokens_to_ids("<|late|>") == end < ROWS
    padded = extend_language_model(tmp_path / "lm", tmp_path / "padded", small, "tokens", pad_to_multiple_of=256)
    assert padded.rows == load(tmp_path / "padded").config.vocab_size == 512


def test_marks_before_codes_move_into_padding(codec: Codec, tmp_path: Path) -> None:
    write_model(tmp_path / "lm", qwen2())
    llasa = load_layout("llasa")
    done = extend_language_model(tmp_path / "lm", tmp_path / "out", codec, "tokens", layout=llasa)
    assert (done.vocabulary.first, done.vocabulary.offset) == (TOKENS, TOKENS + 8)
    old, new = (matrices(load(tmp_path / name))[0] for name in ("lm", "out"))
    assert torch.equal(new[:TOKENS], old[:TOKENS])
    torch.testing.assert_close(new[TOKENS : TOKENS + 8], old[:TOKENS].mean(0).expand(8, -1), rtol=1e-5, atol=1e-7)
    assert torch.equal(new[TOKENS + 8 : TOKENS + 108], codec.codebooks[0] / 100)
    fixed = extend_language_model(tmp_path / "lm", tmp_path / "fixed", codec, layout=FIXED)
    assert (fixed.vocabulary.first, fixed.reused_rows, fixed.unused_tokens) == (290, 30, 13)


def test_ids_of_tokens_are_not_given_to_codes(codec: Codec, tmp_path: Path) -> None:
    source = tmp_path / "lm"
    write_model(source, qwen2())

    def refused(message: str, offset: Any = None, layout: TokenLayout | None = None) -> None:
        with pytest.raises(InputError, match=message):
            extend_language_model(source, tmp_path / "out", codec, offset, layout=layout)
        assert not (tmp_path / "out").exists()

    refused(f"offset {TOKENS - 1} lies within the ids that .* up to 276; .* {TOKENS} or more", TOKENS - 1)
    refused("offset 0 lies within", 0)
    refused("offset -1 lies within", -1)
    low = FIXED.model_copy(update={"first_id": TOKENS - 1})
    refused("layout fixed has its tokens from 276 on, within the ids that .* uses for text", layout=low)
    refused("layout fixed decides", "tokens", FIXED)
    # An id that the configuration names has an owner, also without a token.
    set_config(source, {"pad_token_id": 300})
    refused("offset 300 lies within the ids that .* up to 300", 300)
    done = extend_language_model(source, tmp_path / "behind", codec, "tokens")
    assert (done.vocabulary.offset, done.unused_tokens) == (301, 301 - TOKENS)
    set_config(source, {"pad_token_id": ROWS})
    refused(r"config.json \(pad_token_id\) names the id 320, .* audio token <\|g0r0_320\|>")
    set_config(source, {"pad_token_id": 0, "text_config": {"image_token_index": ROWS + 101}})
    refused(r"config.json \(text_config.image_token_index\) .* token <\|endofaudio\|>")
    # An id behind all rows, and one of another model's vocabulary.
    others = {"text_config": None, "image_token_index": 50_256, "encoder": {"pad_token_id": ROWS}}
    set_config(source, others)
    assert extend_language_model(source, tmp_path / "fits", codec).vocabulary.offset == ROWS
    set_config(source, {"eos_token_id": [0, ROWS + 5]}, "generation_config.json")
    refused(r"generation_config.json \(eos_token_id\) names the id 325")
    set_config(source, {"eos_token_id": [0]}, "generation_config.json")
    remove_tokenizer(source)
    refused("offset 319 lies within the 320 rows of the embedding", 319)
    refused("holds no tokenizer, so that its padding is unknown", "tokens")


def test_tokenizer_with_more_tokens_than_rows(codec: Codec, tmp_path: Path) -> None:
    """As after tokens were added to a tokenizer, and the model was not resized."""
    write_model(tmp_path / "lm", qwen2(rows=TOKENS - 7))
    with pytest.raises(InputError, match=r"tokens up to id 276, .* has 270 rows; pass --offset tokens"):
        extend_language_model(tmp_path / "lm", tmp_path / "out", codec)
    done = extend_language_model(tmp_path / "lm", tmp_path / "out", codec, "tokens")
    assert (done.vocabulary.offset, done.reused_rows, done.rows) == (TOKENS, 0, TOKENS + 108)
    old, new = (matrices(load(tmp_path / name))[0] for name in ("lm", "out"))
    assert torch.equal(new[: TOKENS - 7], old)
    torch.testing.assert_close(new[TOKENS - 7 : TOKENS], old.mean(0).expand(7, -1), rtol=1e-5, atol=1e-7)
