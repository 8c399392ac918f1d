"""Extended models that are resized by transformers, saved by it, or extended a second time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from codectok import Codec, InputError
from codectok.config import VectorQuantizerConfig
from codectok.exports.language_model.extend import extend_language_model
from codectok.exports.language_model.vocabulary import read_model_vocabulary
from codectok.tokens.layouts.loading import load_layout
from codectok.tokens.layouts.record import LAYOUT_FILE
from codectok.tokens.vocabulary import Vocabulary
from tests.helpers.codecs import NANO
from tests.helpers.language_models import ROWS, TOKENS, embedding_of, load, matrices, output_of, qwen2, write_model
from tests.helpers.tokenizers import save_tokenizer

N_CODES = 100
END = ROWS + N_CODES + 8


@pytest.fixture(scope="module")
def codec() -> Codec:
    quantizer = VectorQuantizerConfig(codebook_size=N_CODES, codebook_dim=64)
    return Codec.from_config(NANO.model_copy(update={"quantizer": quantizer}), seed=1, device="cpu")


@pytest.mark.parametrize("mean_resizing", [True, False])
@pytest.mark.parametrize("tied", [True, False])
def test_larger_model_keeps_all_rows(tied: bool, mean_resizing: bool, codec: Codec, tmp_path: Path) -> None:
    """Of `resize_token_embeddings`; with `mean_resizing`, its new rows lie next to the mean of all rows before."""
    write_model(tmp_path / "lm", qwen2(tied=tied))
    extend_language_model(tmp_path / "lm", tmp_path / "out", codec)
    model = load(tmp_path / "out")
    before = [rows.clone() for rows in matrices(model)]
    model.resize_token_embeddings(END + 37, mean_resizing=mean_resizing)
    for old, new in zip(before, matrices(model), strict=True):
        assert len(new) == END + 37
        assert torch.equal(new[:END], old)
        if mean_resizing:
            torch.testing.assert_close(new[END:], old.mean(0).expand(37, -1), rtol=0, atol=1e-4)
    assert (embedding_of(model).weight is output_of(model).weight) == tied
    model.save_pretrained(tmp_path / "saved")
    found = read_model_vocabulary(tmp_path / "saved")
    assert (found.rows, found.offset) == (END + 37, ROWS)
    assert found.audio is not None and (found.audio.first, found.audio.end) == (ROWS, END)
    with pytest.raises(InputError, match="already has the tokens of a codec"):
        extend_language_model(tmp_path / "saved", tmp_path / "twice", codec)


def test_smaller_model_has_a_row_for_each_token(codec: Codec, tmp_path: Path) -> None:
    """`resize_token_embeddings(len(tokenizer))` of the extended tokenizer removes padding only."""
    write_model(tmp_path / "lm", qwen2())
    extend_language_model(tmp_path / "lm", tmp_path / "out", codec, pad_to_multiple_of=512)
    model, tokenizer = load(tmp_path / "out"), AutoTokenizer.from_pretrained(tmp_path / "out")
    before = [rows.clone() for rows in matrices(model)]
    assert (model.config.vocab_size, len(tokenizer)) == (512, END)
    # Added tokens do not count here.
    assert tokenizer.vocab_size == TOKENS
    model.resize_token_embeddings(len(tokenizer))
    for old, new in zip(before, matrices(model), strict=True):
        assert torch.equal(new, old[:END])
    model.save_pretrained(tmp_path / "saved")
    assert read_model_vocabulary(tmp_path / "saved").rows == END


@pytest.mark.parametrize("rows", [TOKENS, ROWS, END - 1])
def test_model_that_lost_audio_tokens_is_refused(rows: int, codec: Codec, tmp_path: Path) -> None:
    """As after `resize_token_embeddings(len(tokenizer))` with the tokenizer from before."""
    write_model(tmp_path / "lm", qwen2())
    extend_language_model(tmp_path / "lm", tmp_path / "out", codec)
    model = load(tmp_path / "out")
    model.resize_token_embeddings(rows)
    model.save_pretrained(tmp_path / "cut")
    with pytest.raises(InputError, match=f"ids up to {END - 1}, but the embedding has {rows} rows"):
        read_model_vocabulary(tmp_path / "cut")
    with pytest.raises(InputError, match="extend the model again"):
        extend_language_model(tmp_path / "cut", tmp_path / "twice", codec)


@pytest.mark.parametrize("layout", ["unitts", "neutts", "llasa"])
@pytest.mark.parametrize("second", ["unitts", "soda"])
def test_extended_tokenizer_reveals_a_model_without_its_entry(
    layout: str, second: str, codec: Codec, tmp_path: Path
) -> None:
    """As after a trainer that writes `config.json` anew."""
    write_model(tmp_path / "lm", qwen2())
    extend_language_model(tmp_path / "lm", tmp_path / "out", codec, layout=load_layout(layout))
    path = tmp_path / "out" / "config.json"
    config = json.loads(path.read_text())
    del config["codectok"]
    path.write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"already has (the token|tokens of the layout)"):
        extend_language_model(tmp_path / "out", tmp_path / "twice", codec, layout=load_layout(second))
    (tmp_path / "out" / LAYOUT_FILE).unlink(missing_ok=True)
    with pytest.raises(InputError, match="already has the token"):
        extend_language_model(tmp_path / "out", tmp_path / "twice", codec, layout=load_layout(layout))
    assert not (tmp_path / "twice").exists()


@pytest.mark.parametrize("offset", [None, "tokens"])
def test_same_model_is_extended_to_same_bytes(offset: str | None, codec: Codec, tmp_path: Path) -> None:
    write_model(tmp_path / "lm", qwen2(layers=4), torch.bfloat16, shard_size="60KB")
    for name in ("one", "two"):
        extend_language_model(tmp_path / "lm", tmp_path / name, codec, offset)  # type: ignore[arg-type]
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "two").iterdir())
    assert len(names) > 7
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name


def test_tokens_added_later_are_resized_by_transformers(codec: Codec, tmp_path: Path) -> None:
    """Their ids are behind those of audio, and their rows are new."""
    write_model(tmp_path / "lm", qwen2())
    extend_language_model(tmp_path / "lm", tmp_path / "out", codec)
    model, tokenizer = load(tmp_path / "out"), AutoTokenizer.from_pretrained(tmp_path / "out")
    before = [rows.clone() for rows in matrices(model)]
    tokenizer.add_tokens(["<|late|>", "<|later|>"])
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|latest|>"]}, replace_extra_special_tokens=False)
    ids = tokenizer("<|late|><|later|><|latest|>").input_ids
    assert ids == [END, END + 1, END + 2]
    model.resize_token_embeddings(len(tokenizer))
    assert torch.equal(matrices(model)[0][:END], before[0])
    with torch.inference_mode():
        assert torch.isfinite(model(torch.tensor([ids])).logits).all()


def test_original_tokenizer_numbers_new_tokens_from_padding_on(tmp_path: Path) -> None:
    """They take the ids of `<|unused0|>` and so on, and with enough of them those of audio."""
    tokenizer = AutoTokenizer.from_pretrained(save_tokenizer(tmp_path))
    tokenizer.add_tokens([f"<|late{number}|>" for number in range(ROWS - TOKENS + 1)])
    found = tokenizer.convert_tokens_to_ids(["<|late0|>", f"<|late{ROWS - TOKENS}|>"])
    assert found == [TOKENS, ROWS] == [TOKENS, Vocabulary(N_CODES, offset=ROWS).first]
