"""Small random models of the packages `bigcodec`, `speechtokenizer` and `snac`, in their own layouts."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

CONFIGS: dict[str, dict[str, Any]] = {
    "bigcodec": {
        "ngf": 4, "use_rnn": True, "rnn_bidirectional": False, "rnn_num_layers": 1, "up_ratios": [2, 2, 2, 5, 5],
        "dilations": [1], "out_channels": 16, "codebook_size": 64, "vq_num_quantizers": 1, "codebook_dim": 8,
    },
    "speechtokenizer": {
        "n_filters": 4, "dimension": 16, "semantic_dimension": 24, "strides": [8, 5, 4, 2], "lstm_layers": 1,
        "bidirectional": True, "dilation_base": 2, "residual_kernel_size": 3, "n_residual_layers": 1,
        "activation": "ELU", "sample_rate": 16_000, "n_q": 8, "codebook_size": 64,
    },
    "snac": {
        "sampling_rate": 24_000, "encoder_dim": 4, "encoder_rates": [2, 4, 8, 8], "decoder_dim": 32,
        "decoder_rates": [8, 8, 4, 2], "attn_window_size": None, "codebook_size": 64, "codebook_dim": 8,
        "vq_strides": [4, 2, 1], "noise": True, "depthwise": True,
    },
    "snac with attention": {
        "sampling_rate": 44_100, "encoder_dim": 8, "encoder_rates": [2, 4, 8, 8], "decoder_dim": 64,
        "decoder_rates": [8, 8, 4, 2], "attn_window_size": 32, "codebook_size": 64, "codebook_dim": 8,
        "vq_strides": [8, 4, 2, 1], "noise": True, "depthwise": True,
    },
}  # fmt: skip
WEIGHTS = {"bigcodec": "model.safetensors", "speechtokenizer": "SpeechTokenizer.pt", "snac": "pytorch_model.bin"}
CLASSES = {"bigcodec": "BigCodec", "speechtokenizer": "SpeechTokenizer", "snac": "SNAC"}


def package_of(kind: str) -> str:
    return kind.split()[0]


def make_model(kind: str, seed: int = 0) -> Any:
    """Make a model whose codes depend on the clip."""
    package = package_of(kind)
    made: Callable[..., Any] = getattr(import_module(package), CLASSES[package])
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = CONFIGS[kind]
        model = made(config) if package == "speechtokenizer" else made(**config)
        for name, tensor in model.state_dict().items():
            if name.endswith((".embed", "codebook.weight")) or name.endswith(("original1", "weight_v")):
                tensor.copy_(torch.randn(tensor.shape))
        if package == "speechtokenizer":
            _spread_codebooks(model)
        if package == "bigcodec":
            _copy_features(model)
        if package == "snac":
            _copy_features_of_levels(model)
    return model.eval()


def _spread_codebooks(model: Any) -> None:
    """Put code vectors where the features are, so that codes differ."""
    with torch.inference_mode():
        features = model.encoder(0.3 * torch.randn(1, 1, 64_000))[0].T
        for number, layer in enumerate(model.quantizer.vq.layers):
            near = features[torch.randperm(len(features))[: len(layer.codebook)]]
            spread = features.std(0) * 0.7**number
            layer.codebook.copy_(torch.randn(layer.codebook.shape) * spread + (0 if number else near))


def _copy_features(model: Any) -> None:
    """Take features as code vectors, so that codes differ."""
    layer = model.decoder.quantizer.layers[0]
    with torch.inference_mode():
        projected = layer.in_proj(model.encoder(0.3 * torch.randn(1, 1, 12_800))[0].T)
        layer.codebook.weight.copy_(projected[: len(layer.codebook.weight)])


def _copy_features_of_levels(model: Any) -> None:
    """Take features of each level as its code vectors, repeated if they are few."""
    with torch.inference_mode():
        left = model.encoder(model.preprocess(0.3 * torch.randn(1, 1, 65_536)))
        for quantizer in model.quantizer.quantizers:
            pooled = torch.nn.functional.avg_pool1d(left, quantizer.stride, quantizer.stride)
            projected = quantizer.in_proj(pooled)[0].T
            size = len(quantizer.codebook.weight)
            quantizer.codebook.weight.copy_(projected.repeat(size // len(projected) + 1, 1)[:size])
            left = left - quantizer(left)[0]


def shrink_decoder(patch: pytest.MonkeyPatch) -> None:
    """Let BigCodec make a decoder of 64 channels, which its configuration cannot say, instead of 1536."""
    hf_model = import_module("bigcodec.hf_model")
    patch.setattr(hf_model, "CodecDecoder", partial(hf_model.CodecDecoder, upsample_initial_channel=64))


def save_model(kind: str, folder: Path, seed: int = 0) -> Any:
    """Write a model as its package publishes it, and return the model."""
    model = make_model(kind, seed)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(CONFIGS[kind]))
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    path = folder / WEIGHTS[package_of(kind)]
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return model


def codes_of(kind: str, model: Any, clip: Tensor) -> list[Tensor]:
    """Codes of a clip [n] by the package's own `encode`: [n_frames] of each codebook, or level."""
    with torch.inference_mode():
        codes = model.encode(clip[None, None])
    return [level[0] for level in codes]
