"""Extends a model of the size of Qwen2.5-7B with a codebook of DistilCodec's size."""

from __future__ import annotations

import json
import math
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen2Config

from codectok.exports.language_model.safetensors_file import StoredTensor, stored_tensors

QWEN = Qwen2Config(
    vocab_size=152_064,
    hidden_size=3584,
    intermediate_size=18_944,
    num_hidden_layers=28,
    num_attention_heads=28,
    num_key_value_heads=4,
    tie_word_embeddings=False,
    dtype="bfloat16",
)
N_SHARDS = 4
CODEBOOK_SIZE = 32_768
# Bytes that the test writes; the source is a sparse file.
DISK_BYTES = 18e9
# Peak memory beyond the largest shard: Python, torch, transformers, the codec with its codebook, and rows.
MARGIN_BYTES = 0.5e9
# Growth over Python, torch and the codec: transformers, a model without weights, and rows in blocks. All rows of one
# tensor at once would take 0.7 GB.
GROWTH_BYTES = 0.5e9
EDGE = 1024
BLOCK_BYTES = 1 << 26

EXTEND = """
import json, sys, time
from pathlib import Path
import torch
import transformers
from codectok import Codec
from codectok.config import VectorQuantizerConfig, preset
from codectok.exports.language_model.extend import extend_language_model

def peak():
    (line,) = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024

source, output, codebook, size = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
quantizer = VectorQuantizerConfig(codebook_size=size, codebook_dim=3584)
codec = Codec.from_config(preset("nano").model_copy(update={"quantizer": quantizer}), device="cpu")
torch.save(codec.codebooks[0].clone(), codebook)
before, started = peak(), time.monotonic()
done = extend_language_model(source, output, codec)
print(json.dumps({"before": before, "peak": peak(), "seconds": time.monotonic() - started, "rows": done.rows}))
"""


def write_sparse_model(folder: Path) -> None:
    """Write sparse shards of the right sizes: each tensor has numbers at both ends and a hole between them."""
    folder.mkdir()
    QWEN.architectures = ["Qwen2ForCausalLM"]
    QWEN.save_pretrained(folder)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(QWEN)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    total = sum(2 * math.prod(shape) for shape in shapes.values())
    shards: list[dict[str, tuple[int, ...]]] = [{} for _ in range(N_SHARDS)]
    filled = 0
    for name, shape in shapes.items():
        shards[min(N_SHARDS - 1, filled * N_SHARDS // total)][name] = shape
        filled += 2 * math.prod(shape)
    weight_map: dict[str, str] = {}
    generator = torch.Generator().manual_seed(0)
    for number, shard in enumerate(shards):
        name = f"model-{number + 1:05d}-of-{N_SHARDS:05d}.safetensors"
        weight_map |= dict.fromkeys(shard, name)
        header, place = {}, 0
        for tensor, shape in shard.items():
            end = place + 2 * math.prod(shape)
            header[tensor] = {"dtype": "BF16", "shape": shape, "data_offsets": [place, end]}
            place = end
        text = json.dumps(header).encode()
        with (folder / name).open("wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            file.truncate(8 + len(text) + place)
        for stored in stored_tensors(folder / name):
            n_values = min(EDGE, stored.n_bytes // 2)
            with (folder / name).open("r+b") as file:
                for position in (stored.first_byte, stored.first_byte + stored.n_bytes - 2 * n_values):
                    values = torch.randn(n_values, generator=generator).bfloat16()
                    file.seek(position)
                    file.write(values.view(torch.uint8).numpy().tobytes())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def tensors_in(folder: Path) -> dict[str, StoredTensor]:
    return {tensor.name: tensor for path in folder.glob("*.safetensors") for tensor in stored_tensors(path)}


def same_start(one: StoredTensor, other: StoredTensor) -> bool:
    """Return True if `other` begins with all bytes of `one`."""
    left = one.n_bytes
    with one.file.open("rb") as first, other.file.open("rb") as second:
        first.seek(one.first_byte)
        second.seek(other.first_byte)
        while left:
            n = min(left, BLOCK_BYTES)
            if first.read(n) != second.read(n):
                return False
            left -= n
    return True


def rows_of(tensor: StoredTensor, first: int) -> torch.Tensor:
    with tensor.file.open("rb") as file:
        file.seek(tensor.first_byte + first * tensor.row_bytes)
        data = bytearray(file.read((tensor.shape[0] - first) * tensor.row_bytes))
    return torch.frombuffer(data, dtype=torch.bfloat16).view(-1, tensor.shape[1])


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_extending_7b_model_needs_memory_of_one_shard(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    if free < DISK_BYTES:
        pytest.skip(f"{tmp_path} has {free / 1e9:.0f} GB of free space; {DISK_BYTES / 1e9:.0f} GB are written")
    source, output, codebook = tmp_path / "qwen", tmp_path / "out", tmp_path / "codebook.pt"
    try:
        write_sparse_model(source)
        arguments = [sys.executable, "-c", EXTEND, str(source), str(output), str(codebook), str(CODEBOOK_SIZE)]
        result = subprocess.run(arguments, check=True, capture_output=True, text=True)
        found = json.loads(result.stdout.splitlines()[-1])
        before, after = tensors_in(source), tensors_in(output)
        largest = max(path.stat().st_size for path in source.glob("*.safetensors"))
        assert found["peak"] <= largest + MARGIN_BYTES, found
        assert found["peak"] - found["before"] <= GROWTH_BYTES, found
        assert before.keys() == after.keys()
        n_rows = QWEN.vocab_size + CODEBOOK_SIZE + 8
        assert found["rows"] == n_rows == 184_840
        vectors = (torch.load(codebook) / 100).bfloat16()
        for name, tensor in before.items():
            assert same_start(tensor, after[name]), name
            if name not in ("model.embed_tokens.weight", "lm_head.weight"):
                assert after[name].shape == tensor.shape
                continue
            assert after[name].shape == (n_rows, QWEN.hidden_size)
            assert torch.equal(rows_of(after[name], QWEN.vocab_size)[:CODEBOOK_SIZE], vectors)
        index = json.loads((output / "model.safetensors.index.json").read_text())
        assert index["metadata"]["total_size"] == sum(tensor.n_bytes for tensor in after.values())
    finally:
        # pytest keeps the folders of recent runs.
        for folder in (source, output):
            shutil.rmtree(folder, ignore_errors=True)
        codebook.unlink(missing_ok=True)
