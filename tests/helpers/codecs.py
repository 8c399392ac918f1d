"""Small codecs of every variant, with weights that affect the output, and clips for them."""

from __future__ import annotations

import copy
from unittest import mock

import numpy as np
import torch

from codectok import Codec
from codectok.choices import KernelChoice, Precision
from codectok.config import (
    CodecConfig,
    EncoderConfig,
    FiniteScalarQuantizerConfig,
    InverseSTFTDecoderConfig,
    SimVectorQuantizerConfig,
    VectorQuantizerConfig,
    preset,
)
from codectok.model.quantization import k_means

NANO = preset("nano")
VARIANTS = {
    "one-codebook": NANO,
    "folded": NANO.model_copy(
        update={"quantizer": VectorQuantizerConfig(codebook_size=6000, codebook_dim=300), "left_pad": 1}
    ),
    "grouped-residual": NANO.model_copy(
        update={
            "quantizer": VectorQuantizerConfig(
                n_groups=2, n_residuals=3, codebook_size=64, codebook_dim=16, time_factors=(2,)
            )
        }
    ),
    "two-time-factors": NANO.model_copy(
        update={
            "quantizer": VectorQuantizerConfig(codebook_size=64, codebook_dim=16, time_factors=(2, 3)),
            "encoder": EncoderConfig(depths=(2, 1), dims=(64, 128), kernel_size=3),
            "left_pad": 255,
        }
    ),
    "width-equals-codebook": NANO.model_copy(
        update={"quantizer": VectorQuantizerConfig(codebook_size=64, codebook_dim=128, time_factors=())}
    ),
    "simvq": NANO.model_copy(
        update={"quantizer": SimVectorQuantizerConfig(codebook_size=2000, codebook_dim=200, time_factors=(2,))}
    ),
    "fsq": NANO.model_copy(update={"quantizer": FiniteScalarQuantizerConfig(levels=(8, 5, 5, 3), time_factors=(2,))}),
    "inverse-stft": NANO.model_copy(update={"decoder": InverseSTFTDecoderConfig(type="istft", dim=48, depth=2)}),
}


def make_codec(
    config: CodecConfig,
    device: str = "cpu",
    dtype: Precision = "float32",
    pack_frames: int | None = None,
    kernels: KernelChoice = "auto",
) -> Codec:
    """Create a codec with random weights that all affect the output, and codebooks that fit noise."""
    codec = Codec.from_config(config, seed=3, device=device, dtype=dtype, pack_frames=pack_frames, kernels=kernels)
    generator = torch.Generator().manual_seed(4)
    for name, tensor in codec.network.named_parameters():
        # The initial layer scale of 1e-6 would hide the other weights of a block.
        if name.endswith("gamma"):
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
        if name == "quantizer.inner.project_in.weight":  # FSQ rounds small values to one code
            tensor.mul_(10)
    network = copy.deepcopy(codec.network)
    network.prepare_for_training()
    # Codes at random frames suffice: k-means would take longer than most tests.
    with torch.inference_mode(), mock.patch.object(k_means, "ITERATIONS", 0):
        waveform = torch.from_numpy(noise(1, 1_600_000, seed=6)).to(codec.device)
        network.quantizer.initialize_codebooks(network.encoder(codec.log_mel(waveform)), seed=5)
    codec.network.load_state_dict(network.inference_state_dict())
    return codec


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    """Gaussian noise float32 [*shape]."""
    return np.random.default_rng(seed).normal(0, 0.1, shape).astype(np.float32)
