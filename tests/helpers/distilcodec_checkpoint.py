"""Writes a DistilCodec checkpoint of the published size with random tensors: FOLDER/g_00204000, model_config.json.

Names and shapes follow the published layout, independently of the importer.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from torch import Tensor

DIMS, DEPTHS, MELS = (256, 512, 768, 1024), (3, 3, 9, 3), 128
WIDTH, CODES, CODE_DIM = 1024, 32_768, 3584
RATES, KERNELS = (8, 4, 2, 2, 2), (16, 12, 4, 4, 4)
RESBLOCK_KERNELS, DILATIONS = (3, 7, 11), (1, 3, 5)

Tensors = dict[str, Tensor]


def filled(*shape: int, scale: float = 0.02) -> Tensor:
    return torch.randn(*shape) * scale


def block(prefix: str, dim: int) -> Tensors:
    return {
        f"{prefix}.gamma": torch.rand(dim) + 0.5,
        f"{prefix}.dwconv.weight": filled(dim, 1, 7, scale=0.2),
        f"{prefix}.dwconv.bias": filled(dim),
        f"{prefix}.norm.weight": 1 + filled(dim),
        f"{prefix}.norm.bias": filled(dim),
        f"{prefix}.pwconv1.weight": filled(4 * dim, dim),
        f"{prefix}.pwconv1.bias": filled(4 * dim),
        f"{prefix}.pwconv2.weight": filled(dim, 4 * dim),
        f"{prefix}.pwconv2.bias": filled(dim),
    }


def layer_norm(prefix: str, dim: int) -> Tensors:
    return {f"{prefix}.weight": 1 + filled(dim), f"{prefix}.bias": filled(dim)}


def encoder() -> Tensors:
    tensors = {
        "downsample_layers.0.0.weight": filled(DIMS[0], MELS, 7),
        "downsample_layers.0.0.bias": filled(DIMS[0]),
        **layer_norm("downsample_layers.0.1", DIMS[0]),
        **layer_norm("norm", DIMS[-1]),
    }
    for stage, (dim, depth) in enumerate(zip(DIMS, DEPTHS, strict=True)):
        if stage:
            tensors |= layer_norm(f"downsample_layers.{stage}.0", DIMS[stage - 1])
            tensors[f"downsample_layers.{stage}.1.weight"] = filled(dim, DIMS[stage - 1], 1)
            tensors[f"downsample_layers.{stage}.1.bias"] = filled(dim)
        for number in range(depth):
            tensors |= block(f"stages.{stage}.{number}", dim)
    return tensors


def quantizer() -> Tensors:
    codebook = "grvq.rvqs.0.layers.0._codebook"
    tensors = {
        "grvq.rvqs.0.project_in.weight": filled(CODE_DIM, WIDTH),
        "grvq.rvqs.0.project_in.bias": filled(CODE_DIM),
        "grvq.rvqs.0.project_out.weight": filled(WIDTH, CODE_DIM),
        "grvq.rvqs.0.project_out.bias": filled(WIDTH),
        f"{codebook}.initted": torch.ones(1),
        f"{codebook}.cluster_size": torch.rand(1, CODES),
        f"{codebook}.embed_avg": filled(1, CODES, CODE_DIM, scale=0.5),
        f"{codebook}.embed": filled(1, CODES, CODE_DIM, scale=0.5),
    }
    for name in ("downsample", "upsample"):
        tensors[f"{name}.0.0.weight"] = filled(WIDTH, WIDTH, 1)
        tensors[f"{name}.0.0.bias"] = filled(WIDTH)
        tensors |= block(f"{name}.0.1", WIDTH)
    return tensors


def weight_norm(prefix: str, *shape: int, bias: int) -> Tensors:
    return {
        f"{prefix}.bias": filled(bias),
        f"{prefix}.parametrizations.weight.original0": torch.rand(shape[0], *[1] * (len(shape) - 1)),
        f"{prefix}.parametrizations.weight.original1": filled(*shape),
    }


def generator() -> Tensors:
    tensors = weight_norm("conv_pre", WIDTH, WIDTH, 13, bias=WIDTH)
    channels = WIDTH
    for stage, kernel in enumerate(KERNELS):
        tensors |= weight_norm(f"ups.{stage}", channels, channels // 2, kernel, bias=channels // 2)
        channels //= 2
        for number, size in enumerate(RESBLOCK_KERNELS):
            for convs in ("convs1", "convs2"):
                for layer in range(len(DILATIONS)):
                    prefix = f"resblocks.{stage}.blocks.{number}.{convs}.{layer}"
                    tensors |= weight_norm(prefix, channels, channels, size, bias=channels)
    return tensors | weight_norm("conv_post", 1, channels, 13, bias=1)


CONFIG = {
    "spec_transform": {
        "sampling_rate": 24_000, "segment_size": 72_000, "num_mels": MELS, "n_fft": 1024, "hop_size": 256,
        "win_size": 1024, "fmin": 0, "fmax": 12_000, "fmax_loss": None,
    },
    "encoder": {
        "input_channels": MELS, "depths": DEPTHS, "dims": DIMS, "drop_path_rate": 0.2, "kernel_size": 7,
    },
    "decoder": {
        "hop_length": 256, "upsample_rates": RATES, "upsample_kernel_sizes": KERNELS,
        "resblock_kernel_sizes": RESBLOCK_KERNELS, "resblock_dilation_sizes": [DILATIONS] * 3, "num_mels": WIDTH,
        "upsample_initial_channel": WIDTH, "use_template": False, "pre_conv_kernel_size": 13,
        "post_conv_kernel_size": 13,
    },
    "quantizer": {
        "quantizer_type": "grvq", "input_dim": WIDTH, "n_groups": 1, "n_codebooks": 1, "codebook_size": CODES,
        "codebook_dim": CODE_DIM, "levels": [8, 5, 5, 5], "downsample_factor": [1], "ema_decay": 0.8,
    },
}  # fmt: skip


def main(folder: Path) -> None:
    torch.manual_seed(0)
    folder.mkdir(parents=True)
    torch.save({"generator": generator(), "encoder": encoder(), "quantizer": quantizer()}, folder / "g_00204000")
    (folder / "model_config.json").write_text(json.dumps(CONFIG))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
