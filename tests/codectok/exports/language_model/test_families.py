"""Extending tiny models of the families that people train on audio, with tied and untied output."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoTokenizer,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    LlamaConfig,
    MistralConfig,
    PretrainedConfig,
    Qwen3Config,
    SmolLM3Config,
)

from codectok import Codec, InputError
from codectok.config import VectorQuantizerConfig
from codectok.exports.language_model.embedding_rows import RowOptions
from codectok.exports.language_model.extend import extend_language_model
from codectok.exports.vocabulary import VocabularyFile
from tests.helpers.codecs import NANO
from tests.helpers.language_models import ROWS, TOKENS, embedding_of, load, matrices, output_of, write_model

SIZES: dict[str, Any] = {
    "vocab_size": ROWS,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
HEADS: dict[str, Any] = {"head_dim": 8}
ROPE_3: dict[str, Any] = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
    "rope_theta": 500_000.0,
}
# SmolLM has the shape of a tied Llama.
FAMILIES: dict[str, tuple[type[PretrainedConfig], dict[str, Any]]] = {
    "qwen3": (Qwen3Config, HEADS),
    "llama3": (LlamaConfig, {"rope_parameters": ROPE_3}),
    "mistral": (MistralConfig, {"sliding_window": 16}),
    "smollm3": (SmolLM3Config, {"no_rope_layers": [1, 0]}),
    "gemma": (GemmaConfig, HEADS),
    "gemma2": (Gemma2Config, {**HEADS, "final_logit_softcapping": 30.0, "sliding_window": 16}),
    "gemma3": (Gemma3TextConfig, {**HEADS, "sliding_window": 16}),
}
SCALED = ("gemma", "gemma2", "gemma3")
N_CODES = 50


@pytest.fixture(scope="module")
def codec() -> Codec:
    quantizer = VectorQuantizerConfig(codebook_size=N_CODES, codebook_dim=32)
    return Codec.from_config(NANO.model_copy(update={"quantizer": quantizer}), seed=1, device="cpu")


def config_of(family: str, tied: bool) -> PretrainedConfig:
    kind, options = FAMILIES[family]
    return kind(**{**SIZES, **options, "tie_word_embeddings": tied})


def assert_extended(source: Path, output: Path, codec: Codec, first: int) -> None:
    """Check text rows and logits bit for bit, rows of codes, the tie, generation, and saving by transformers."""
    before, after = load(source), load(output)
    told = VocabularyFile(**after.config.codectok)
    codes = (codec.codebooks[0] / 100).to(after.dtype)
    for old, new in zip(matrices(before), matrices(after), strict=True):
        assert torch.equal(new[:first], old[:first])
        assert torch.equal(new[first : first + N_CODES], codes)
        mean = old[:TOKENS].float().mean(0).to(old.dtype).expand(len(new) - first - N_CODES, -1)
        torch.testing.assert_close(new[first + N_CODES :], mean, rtol=1e-2, atol=1e-6)
    tied = before.config.tie_word_embeddings
    assert after.config.tie_word_embeddings == tied
    assert (embedding_of(after).weight is output_of(after).weight) == tied

    tokenizer = AutoTokenizer.from_pretrained(output)
    ids = torch.tensor([tokenizer("hello to the world of words").input_ids])
    with torch.inference_mode():
        old_run, new_run = (model(ids, output_hidden_states=True) for model in (before, after))
    assert torch.equal(new_run.hidden_states[-1], old_run.hidden_states[-1])
    # The product with more rows may be rounded in another order.
    torch.testing.assert_close(new_run.logits[..., :first], old_run.logits[..., :first])
    prompt = tokenizer("hello<|beginofaudio|>", return_tensors="pt")
    allowed = list(range(first, first + N_CODES))
    made: Any = after
    said = made.generate(**prompt, max_new_tokens=6, do_sample=False, prefix_allowed_tokens_fn=lambda *_: allowed)
    audio = said[0, prompt.input_ids.shape[1] :]
    assert len(audio) == 6 and set(audio.tolist()) <= set(allowed)

    saved = output.parent / "saved"
    after.save_pretrained(saved)
    again = load(saved)
    assert VocabularyFile(**again.config.codectok) == told
    kept = again.state_dict()
    assert all(torch.equal(tensor, kept[name]) for name, tensor in after.state_dict().items())
    with pytest.raises(InputError, match="already has the tokens of a codec"):
        extend_language_model(saved, output.parent / "twice", codec)


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("family", FAMILIES)
def test_model_families_keep_text_and_get_audio(family: str, tied: bool, codec: Codec, tmp_path: Path) -> None:
    write_model(tmp_path / "lm", config_of(family, tied))
    done = extend_language_model(tmp_path / "lm", tmp_path / "out", codec)
    assert (done.rows, done.reused_rows, len(done.extended)) == (ROWS + N_CODES + 8, 0, 1 if tied else 2)
    assert_extended(tmp_path / "lm", tmp_path / "out", codec, ROWS)


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("family", FAMILIES)
def test_sharded_bfloat16_families_reuse_padding(family: str, tied: bool, codec: Codec, tmp_path: Path) -> None:
    write_model(tmp_path / "lm", config_of(family, tied), torch.bfloat16, shard_size="30KB")
    done = extend_language_model(tmp_path / "lm", tmp_path / "out", codec, "tokens", pad_to_multiple_of=64)
    assert (done.rows, done.reused_rows) == (384, ROWS - TOKENS)
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 2
    assert index["metadata"]["total_parameters"] == load(tmp_path / "out").num_parameters()
    assert_extended(tmp_path / "lm", tmp_path / "out", codec, TOKENS)


@pytest.mark.parametrize("family", SCALED)
def test_scale_refers_to_stored_rows(family: str, codec: Codec, tmp_path: Path) -> None:
    """Gemma multiplies embeddings by the root of their width when it runs, codes and text alike."""
    write_model(tmp_path / "lm", config_of(family, tied=True))
    extend_language_model(tmp_path / "lm", tmp_path / "out", codec, options=RowOptions(scale="rms"))
    model = load(tmp_path / "out")
    rows = matrices(model)[0].double()
    text, audio = rows[:TOKENS], rows[ROWS : ROWS + N_CODES]
    assert audio.square().mean().sqrt() == pytest.approx(float(text.square().mean().sqrt()), rel=1e-4)
