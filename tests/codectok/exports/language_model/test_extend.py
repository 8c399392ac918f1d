"""Extending language models with rows for audio tokens."""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoTokenizer,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    PhiConfig,
    PretrainedConfig,
)

from codectok import Codec, InputError
from codectok.config import FiniteScalarQuantizerConfig, VectorQuantizerConfig
from codectok.exports.choices import RowStart
from codectok.exports.language_model import embedding_rows as audio_rows
from codectok.exports.language_model.embedding_rows import RowOptions
from codectok.exports.language_model.extend import extend_language_model
from codectok.exports.language_model.vocabulary import read_model_vocabulary
from codectok.exports.vocabulary import VocabularyFile
from codectok.tokens.vocabulary import Vocabulary
from tests.helpers.codebook_learning import codebooks_of, first_group
from tests.helpers.codecs import NANO
from tests.helpers.language_models import (
    ROWS,
    TOKENS,
    embedding_of,
    gemma3,
    load,
    matrices,
    output_of,
    qwen2,
    remove_tokenizer,
    write_model,
)

SIZES: dict[str, Any] = {"vocab_size": ROWS, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
SMALL: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
CONFIGS = {
    "qwen2.5-7b": qwen2(),
    "qwen2.5-0.5b, tied": qwen2(tied=True),
    "llama": LlamaConfig(**SIZES, **SMALL),
    "gpt2, tied": GPT2Config(**SIZES, n_embd=64, n_layer=2, n_head=4, n_positions=ROWS),
    "phi, with a bias": PhiConfig(**SIZES, **SMALL),
    "gpt-neox, renamed output": GPTNeoXConfig(**SIZES, **SMALL),
}


@pytest.fixture(scope="module")
def codec() -> Codec:
    """A codec whose code vectors are as wide as the embeddings below."""
    quantizer = VectorQuantizerConfig(codebook_size=200, codebook_dim=64)
    return Codec.from_config(NANO.model_copy(update={"quantizer": quantizer}), seed=1, device="cpu")


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_causal_models_get_audio_rows_and_keep_text_rows(
    config: PretrainedConfig, codec: Codec, tmp_path: Path
) -> None:
    write_model(tmp_path / "lm", config)
    done = extend_language_model(tmp_path / "lm", tmp_path / "out", codec)
    before, after = load(tmp_path / "lm"), load(tmp_path / "out")
    vocabulary = Vocabulary(200, offset=ROWS)
    assert (done.vocabulary, done.text_rows, done.rows) == (vocabulary, ROWS, ROWS + 208)
    assert after.config.get_text_config().vocab_size == vocabulary.end
    assert after.config.tie_word_embeddings == config.tie_word_embeddings
    for old, new in zip(matrices(before), matrices(after), strict=True):
        assert len(new) == vocabulary.end
        assert torch.equal(new[:ROWS], old)
        assert torch.equal(new[ROWS : ROWS + 200], codec.codebooks[0] / 100)
        torch.testing.assert_close(new[ROWS + 200 :], old[:TOKENS].mean(0).expand(8, -1), rtol=1e-5, atol=1e-7)
    if config.tie_word_embeddings:
        assert embedding_of(after).weight is output_of(after).weight
    bias, old_bias = (output_of(model).bias for model in (after, before))
    assert (bias is None) == (config.model_type != "phi")
    if bias is not None:
        assert torch.equal(bias[:ROWS], old_bias)
        torch.testing.assert_close(bias[ROWS:], old_bias[:TOKENS].mean().expand(208))
    if config.model_type == "gpt2":
        assert torch.equal(*(model.get_parameter("transformer.wpe.weight") for model in (after, before)))
    ids = torch.tensor([AutoTokenizer.from_pretrained(tmp_path / "lm")("hello to the world").input_ids])
    with torch.inference_mode():
        # Logits of text are unchanged, except for rounding in a wider product.
        torch.testing.assert_close(after(ids).logits[..., :ROWS], before(ids).logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("multiple", [64, 1, 208, 1000])
@pytest.mark.parametrize("config", [*CONFIGS.values(), gemma3()], ids=[*CONFIGS, "gemma3, tied"])
def test_rows_are_padded_to_a_multiple(config: PretrainedConfig, multiple: int, codec: Codec, tmp_path: Path) -> None:
    write_model(tmp_path / "lm", config)
    plain = extend_language_model(tmp_path / "lm", tmp_path / "plain", codec)
    done = extend_language_model(tmp_path / "lm", tmp_path / "out", codec, pad_to_multiple_of=multiple)
    assert done.vocabulary == plain.vocabulary
    assert done.rows % multiple == 0 and 0 <= done.rows - plain.rows < multiple
    before, after = load(tmp_path / "plain"), load(tmp_path / "out")
    assert after.config.get_text_config().vocab_size == done.rows
    assert after.config.tie_word_embeddings == before.config.tie_word_embeddings
    for old, new in zip(matrices(before), matrices(after), strict=True):
        assert len(new) == done.rows
        assert torch.equal(new[: plain.rows], old)
        mean = old[:TOKENS].mean(0).expand(done.rows - plain.rows, -1)
        torch.testing.assert_close(new[plain.rows :], mean, rtol=1e-5, atol=1e-7)
    if after.config.tie_word_embeddings:
        assert embedding_of(after).weight is output_of(after).weight
    assert len(AutoTokenizer.from_pretrained(tmp_path / "out")) == plain.rows
    found = read_model_vocabulary(tmp_path / "out")
    assert found.rows == done.rows
    assert found.audio is not None
    assert (found.audio.end, found.offset) == (plain.rows, ROWS)
    assert found.audio.pad_vocabulary_to_multiple_of == (None if multiple == 1 else multiple)
    if multiple == 1:
        for path in (tmp_path / "plain").iterdir():
            assert path.read_bytes() == (tmp_path / "out" / path.name).read_bytes()


def test_padding_of_shards_is_in_their_index(codec: Codec, tmp_path: Path) -> None:
    write_model(tmp_path / "lm", qwen2(layers=4), torch.bfloat16, shard_size="100KB")
    extend_language_model(tmp_path / "lm", tmp_path / "out", codec, pad_to_multiple_of=512)
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_parameters"] == load(tmp_path / "out").num_parameters()


@pytest.mark.parametrize("multiple", [0, -64])
def test_impossible_padding_is_refused(multiple: int, codec: Codec, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="multiple"):
        extend_language_model(tmp_path / "lm", tmp_path / "out", codec, pad_to_multiple_of=multiple)


def test_nested_vocab_size_of_text_model_counts(codec: Codec, tmp_path: Path) -> None:
    write_model(tmp_path / "lm", gemma3())
    path = tmp_path / "lm" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "vocab_size": ROWS - 64}))
    done = extend_language_model(tmp_path / "lm", tmp_path / "out", codec)
    assert (done.text_rows, done.vocabulary.offset) == (ROWS, ROWS)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["vocab_size"] == config["text_config"]["vocab_size"] == done.rows
    assert load(tmp_path / "out").config.get_text_config().vocab_size == done.rows


def test_extended_folder_keeps_files_except_other_weights(codec: Codec, tmp_path: Path) -> None:
    write_model(tmp_path / "lm", qwen2())
    (tmp_path / "lm" / "LICENSE").write_text("terms")
    (tmp_path / "lm" / "pytorch_model.bin").write_text("other weights")
    done = extend_language_model(tmp_path / "lm", tmp_path / "out", codec, offset=330)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert len(tokenizer) == done.rows == 330 + 208
    assert tokenizer.convert_tokens_to_ids("<|g0r0_330|>") == 330
    assert done.unused_tokens == 330 - len(AutoTokenizer.from_pretrained(tmp_path / "lm"))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "LICENSE",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert (tmp_path / "out" / "generation_config.json").read_text() == (
        tmp_path / "lm" / "generation_config.json"
    ).read_text()
    # The codec's description survives training and saving.
    load(tmp_path / "out").save_pretrained(tmp_path / "trained")
    told = AutoConfig.from_pretrained(tmp_path / "trained").codectok
    assert told["codec_fingerprint"] == codec.fingerprint
    assert VocabularyFile(**told).end == done.rows
    # Rows without tokens, before the codes, equal the mean as well.
    embedding, _ = matrices(load(tmp_path / "out"))
    torch.testing.assert_close(embedding[ROWS:330], embedding[:TOKENS].mean(0).expand(10, -1), rtol=1e-5, atol=1e-7)
    assert torch.equal(embedding[330:530], codec.codebooks[0] / 100)


def test_model_without_tokenizer_is_extended(codec: Codec, tmp_path: Path) -> None:
    write_model(tmp_path / "lm", qwen2())
    remove_tokenizer(tmp_path / "lm")
    assert extend_language_model(tmp_path / "lm", tmp_path / "out", codec).unused_tokens is None
    load(tmp_path / "out")


@pytest.mark.parametrize("tied", [False, True])
def test_shards_and_dtypes_are_kept(codec: Codec, tmp_path: Path, tied: bool) -> None:
    write_model(tmp_path / "lm", qwen2(layers=4, tied=tied), torch.bfloat16, shard_size="100KB")
    extend_language_model(tmp_path / "lm", tmp_path / "out", codec)
    before, after = load(tmp_path / "lm"), load(tmp_path / "out")
    assert after.dtype == torch.bfloat16
    assert torch.equal(matrices(after)[0][ROWS : ROWS + 200], (codec.codebooks[0] / 100).bfloat16())
    assert torch.equal(matrices(after)[1][:ROWS], matrices(before)[1])
    shards = {path.name for path in (tmp_path / "lm").glob("*.safetensors")}
    assert {path.name for path in (tmp_path / "out").glob("*.safetensors")} == shards
    assert len(shards) > 3
    same = {n for n in shards if (tmp_path / "lm" / n).read_bytes() == (tmp_path / "out" / n).read_bytes()}
    assert len(shards - same) == (1 if tied else 2)
    old, new = (json.loads((tmp_path / name / "model.safetensors.index.json").read_text()) for name in ("lm", "out"))
    assert new["weight_map"] == old["weight_map"]
    added = 208 * 64 * (1 if tied else 2)
    assert new["metadata"]["total_size"] == old["metadata"]["total_size"] + 2 * added
    assert new["metadata"]["total_parameters"] == after.num_parameters() == before.num_parameters() + added


def test_code_vectors_of_another_width_are_projected(tmp_path: Path) -> None:
    write_model(tmp_path / "lm", qwen2())
    codec = Codec.from_config("nano", seed=1, device="cpu")  # 32 wide
    done = extend_language_model(tmp_path / "lm", tmp_path / "out", codec)
    assert (done.options.start, done.options.scale) == ("projection", "rms")
    for old, new in zip(matrices(load(tmp_path / "lm")), matrices(load(tmp_path / "out")), strict=True):
        rows = new[ROWS : ROWS + 1024].double()
        wanted_rms = float(old[:TOKENS].double().square().mean().sqrt())
        assert rows.square().mean().sqrt() == pytest.approx(wanted_rms, rel=1e-5)
        distances, wanted = torch.pdist(rows[:100]), torch.pdist(codec.codebooks[0][:100].double())
        torch.testing.assert_close(distances / distances.mean(), wanted / wanted.mean(), rtol=1e-5, atol=0)
    again = extend_language_model(tmp_path / "lm", tmp_path / "again", codec)
    assert again == done
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (
        tmp_path / "out" / "model.safetensors"
    ).read_bytes()
    extend_language_model(tmp_path / "lm", tmp_path / "seed", codec, options=RowOptions(seed=1))
    assert (tmp_path / "seed" / "model.safetensors").read_bytes() != (
        tmp_path / "out" / "model.safetensors"
    ).read_bytes()


def test_each_codebook_is_scaled_to_text_rows(tmp_path: Path) -> None:
    write_model(tmp_path / "lm", qwen2())
    quantizer = VectorQuantizerConfig(n_groups=2, n_residuals=3, codebook_size=50, codebook_dim=64)
    codec = Codec.from_config(NANO.model_copy(update={"quantizer": quantizer}), device="cpu")
    for number, codebook in enumerate(codebooks_of(first_group(codec.network.quantizer))):
        codebook.embedding /= 10**number
    done = extend_language_model(tmp_path / "lm", tmp_path / "out", codec, options=RowOptions(scale="rms"))
    assert done.vocabulary == Vocabulary(50, 2, 3, ROWS)
    for old, new in zip(matrices(load(tmp_path / "lm")), matrices(load(tmp_path / "out")), strict=True):
        for number in range(6):
            rows = new[ROWS + 50 * number : ROWS + 50 * (number + 1)]
            assert rows.square().mean().sqrt() == pytest.approx(float(old[:TOKENS].square().mean().sqrt()), rel=1e-4)
            book = codec.codebooks[number]
            torch.testing.assert_close(rows / rows.norm(), book / book.norm())


def test_random_rows_have_scale_of_text_rows(codec: Codec, tmp_path: Path) -> None:
    write_model(tmp_path / "lm", qwen2())
    extend_language_model(tmp_path / "lm", tmp_path / "out", codec, options=RowOptions(RowStart.RANDOM))
    for old, new in zip(matrices(load(tmp_path / "lm")), matrices(load(tmp_path / "out")), strict=True):
        rows = new[ROWS : ROWS + 200]
        assert rows.square().mean().sqrt() == pytest.approx(float(old[:TOKENS].square().mean().sqrt()), rel=1e-4)
        assert torch.corrcoef(torch.stack([rows.flatten(), codec.codebooks[0].flatten()]))[0, 1].abs() < 0.05


def test_random_rows_of_embedding_and_output_differ(codec: Codec, tmp_path: Path) -> None:
    for name, tied in (("own", False), ("tied", True)):
        write_model(tmp_path / name, qwen2(tied=tied))
        extend_language_model(tmp_path / name, tmp_path / f"{name}-out", codec, options=RowOptions(RowStart.RANDOM))
    read, written = (matrix[ROWS : ROWS + 200].flatten() for matrix in matrices(load(tmp_path / "own-out")))
    assert torch.corrcoef(torch.stack([read, written]))[0, 1].abs() < 0.05
    # Rows made from code vectors are the same in embedding and output.
    extend_language_model(tmp_path / "own", tmp_path / "out", codec, options=RowOptions(RowStart.PROJECTION))
    read, written = (matrix[ROWS : ROWS + 200].flatten() for matrix in matrices(load(tmp_path / "out")))
    torch.testing.assert_close(read / read.norm(), written / written.norm())


@pytest.mark.parametrize("start", [RowStart.CODEBOOK, RowStart.PROJECTION])
def test_rows_do_not_depend_on_block_size(
    start: RowStart, codec: Codec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No row is made twice or skipped for any block size."""
    write_model(tmp_path / "lm", qwen2())
    made = []
    for number, rows_at_once in enumerate((1000, 200, 7)):
        monkeypatch.setattr(audio_rows, "BLOCK_VALUES", rows_at_once * 64)
        out = tmp_path / f"out-{number}"
        extend_language_model(tmp_path / "lm", out, codec, ROWS + 10, RowOptions(start))
        made.append(matrices(load(out))[0])
    for other in made[1:]:
        torch.testing.assert_close(other, made[0], rtol=1e-5, atol=1e-7)


def test_embedding_with_two_names_grows_once(codec: Codec, tmp_path: Path) -> None:
    write_model(tmp_path / "lm", gemma3(), shard_size="100KB")
    done = extend_language_model(tmp_path / "lm", tmp_path / "out", codec)
    assert done.extended == ["language_model.model.embed_tokens.weight"]
    before, after = load(tmp_path / "lm"), load(tmp_path / "out")
    assert torch.equal(matrices(after)[1][ROWS : ROWS + 200], codec.codebooks[0] / 100)
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_parameters"] == after.num_parameters() == before.num_parameters() + 208 * 64


def test_output_that_is_stored_beside_its_tied_embedding_grows_alike(codec: Codec, tmp_path: Path) -> None:
    write_model(tmp_path / "lm", qwen2(tied=True))
    tensors = load_file(tmp_path / "lm" / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, tmp_path / "lm" / "model.safetensors", metadata={"format": "pt"})
    extend_language_model(tmp_path / "lm", tmp_path / "out", codec, options=RowOptions(RowStart.RANDOM))
    made = load_file(tmp_path / "out" / "model.safetensors")
    assert torch.equal(made["lm_head.weight"], made["model.embed_tokens.weight"])
    assert embedding_of(model := load(tmp_path / "out")).weight is output_of(model).weight


def test_extended_model_is_refused(codec: Codec, tmp_path: Path) -> None:
    write_model(tmp_path / "lm", qwen2())
    extend_language_model(tmp_path / "lm", tmp_path / "out", codec)
    with pytest.raises(InputError, match=f"already has the tokens of a codec .* from {ROWS} on"):
        extend_language_model(tmp_path / "out", tmp_path / "twice", codec)
    assert not (tmp_path / "twice").exists()


def test_finite_scalar_quantizer_codes_are_projected(tmp_path: Path) -> None:
    write_model(tmp_path / "lm", qwen2())
    config = NANO.model_copy(update={"quantizer": FiniteScalarQuantizerConfig(levels=(5, 5, 4))})
    done = extend_language_model(tmp_path / "lm", tmp_path / "out", Codec.from_config(config, device="cpu"))
    assert (done.rows, done.options.start) == (ROWS + 108, "projection")
    load(tmp_path / "out")


def test_unsuitable_models_are_refused_without_output(codec: Codec, tmp_path: Path) -> None:
    write_model(tmp_path / "lm", qwen2())

    def refused(message: str, folder: Path = tmp_path / "lm", offset: int | None = None) -> None:
        with pytest.raises(InputError, match=message):
            extend_language_model(folder, tmp_path / "out", codec, offset)
        assert not [path for path in tmp_path.iterdir() if "out" in path.name]

    refused("offset 276 lies within the ids that .* up to 276", offset=276)
    narrow = Codec.from_config("nano", device="cpu")
    with pytest.raises(InputError, match="code vectors have 32 values and the embedding 64"):
        extend_language_model(tmp_path / "lm", tmp_path / "out", narrow, options=RowOptions(RowStart.CODEBOOK))
    with pytest.raises(InputError, match="leave the scale out"):
        RowOptions(RowStart.RANDOM, 100)
    refused("not the folder of a language model", tmp_path)

    def changed(name: str, change: Callable[[dict[str, Any]], object], file: str = "config.json") -> Path:
        shutil.copytree(tmp_path / "lm", tmp_path / name)
        content = json.loads((tmp_path / name / file).read_text())
        change(content)
        (tmp_path / name / file).write_text(json.dumps(content))
        return tmp_path / name

    refused("model type 'qwen99'", changed("new", lambda config: config.update(model_type="qwen99")))
    refused("not a causal language model", changed("vision", lambda config: config.update(model_type="vit")))
    refused(
        r"has no vocab_size; .* rows of the embedding there\.$",
        changed("silent", lambda config: config.pop("vocab_size")),
    )
    refused("has shape", changed("smaller", lambda config: config.update(vocab_size=310)))
    shutil.copytree(tmp_path / "lm", tmp_path / "bin")
    (tmp_path / "bin" / "model.safetensors").rename(tmp_path / "bin" / "pytorch_model.bin")
    refused("weights must be safetensors", tmp_path / "bin")
    write_model(tmp_path / "shards", qwen2(), shard_size="200KB")
    next((tmp_path / "shards").glob("model-00002-of-*.safetensors")).unlink()
    refused(r"00002-of-\d+\.safetensors is missing, but \S+index\.json lists it; copy", tmp_path / "shards")
    shutil.copytree(tmp_path / "lm", tmp_path / "cut")
    data = (tmp_path / "cut" / "model.safetensors").read_bytes()
    (tmp_path / "cut" / "model.safetensors").write_bytes(data[: len(data) // 2])
    refused("cannot be read", tmp_path / "cut")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "file").touch()
    with pytest.raises(InputError, match="not empty"):
        extend_language_model(tmp_path / "lm", tmp_path / "out", codec)


def test_full_disk_error_names_output(codec: Codec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_model(tmp_path / "lm", qwen2())

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("codectok.exports.language_model.extend.copy_with_rows", full)
    with pytest.raises(OSError) as caught:
        extend_language_model(tmp_path / "lm", tmp_path / "out", codec)
    assert caught.value.filename == str(tmp_path / "out")


MEMORY = """
import sys
from pathlib import Path
import transformers
from codectok import Codec
from codectok.exports.language_model.extend import extend_language_model

def peak():
    (line,) = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024

codec = Codec.from_config("nano", device="cpu")
small, large = map(Path, sys.argv[1:3])
extend_language_model(small, small.parent / "small-out", codec)  # imports and one-time initialization
before = peak()
extend_language_model(large, large.parent / "large-out", codec)
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_stays_below_two_shards(tmp_path: Path) -> None:
    """Seven files of about 50 MB need less than the memory of two."""
    write_model(tmp_path / "small", qwen2())
    write_model(tmp_path / "large", qwen2(hidden_size=1024, layers=6, rows=13_000), shard_size="56MB")
    remove_tokenizer(tmp_path / "large")  # thousands of unused tokens would dominate the measurement
    sizes = [path.stat().st_size for path in (tmp_path / "large").glob("*.safetensors")]
    assert len(sizes) >= 6
    assert sum(sizes) > 4 * max(sizes)
    arguments = [sys.executable, "-c", MEMORY, str(tmp_path / "small"), str(tmp_path / "large")]
    result = subprocess.run(arguments, check=True, capture_output=True, text=True)
    assert int(result.stdout) < 2 * max(sizes)
