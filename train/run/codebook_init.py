"""Cost of initializing the codebooks by k-means: measured, or estimated if measuring takes too long."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from codectok.config import FiniteScalarQuantizerConfig, SimVectorQuantizerConfig, VectorQuantizerConfig
from codectok.model.quantization.k_means import ITERATIONS, SEARCH_ROWS, nearest_codes
from codectok.train.config import TrainConfig
from codectok.train.trainer.trainer import VECTORS_PER_CODE, Trainer

# Multiplications that take a CPU a few seconds.
MAX_MULTIPLICATIONS_ON_CPU = 1e12
FLOAT_BYTES, INTEGER_BYTES = 4, 8

LearnedQuantizerConfig = VectorQuantizerConfig | SimVectorQuantizerConfig


@dataclass(frozen=True)
class CodebookInitCost:
    """Cost of initializing all codebooks.

    Attributes:
        seconds: measured or estimated time.
        estimated_bytes: memory besides the networks, None if the initialization was run and can be measured.
    """

    seconds: float
    estimated_bytes: int | None


def measure_codebook_init(trainer: Trainer, batches: Iterable[Tensor]) -> CodebookInitCost | None:
    """Initialize the codebooks of `trainer`, or estimate the cost of a large k-means on a CPU.

    Returns:
        The cost, None if no codebooks are initialized.
    """
    config, device = trainer.config, trainer.device
    quantizer = config.codec.quantizer
    if trainer.skips_codebook_init or isinstance(quantizer, FiniteScalarQuantizerConfig):
        return None
    if device.type == "cpu" and _multiplications(config, quantizer) > MAX_MULTIPLICATIONS_ON_CPU:
        return CodebookInitCost(_estimated_seconds(config, quantizer), codebook_init_bytes(config, quantizer))
    started = time.monotonic()
    trainer.initialize_codebooks(batches)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return CodebookInitCost(time.monotonic() - started, None)


def codebook_init_bytes(config: TrainConfig, quantizer: LearnedQuantizerConfig) -> int:
    """Peak memory of the initialization of `quantizer`, the quantizer of `config`, besides the networks."""
    dim = config.codec.feature_dim
    n_groups = quantizer.n_groups if isinstance(quantizer, VectorQuantizerConfig) else 1
    n_codes, codebook_dim = quantizer.codebook_size, quantizer.codebook_dim
    n_vectors = _vectors(config)
    n_frames = n_vectors * config.codec.time_factor
    # Features of the batches, and their concatenation.
    features = 2 * n_frames * dim
    # The ConvNeXt block after downsampling: its input, its norm, and two activations of four times the width.
    reducing = (2 + 4 + 4) * (n_frames // quantizer.time_factors[0]) * dim if quantizer.time_factors else 0
    reduced = n_vectors * dim if quantizer.time_factors else 0
    projected = n_vectors * codebook_dim if codebook_dim != dim // n_groups else 0
    table = n_codes * codebook_dim
    n_residuals = quantizer.n_residuals if isinstance(quantizer, VectorQuantizerConfig) else 1
    # Residuals for the next codebook.
    residuals = 2 * n_vectors * codebook_dim if n_residuals > 1 else 0
    # Old and new means, sums, quotients and replacements of empty clusters; or the search besides means and sums.
    clustering = max(5 * table, 2 * table + SEARCH_ROWS * n_codes, residuals)
    floats = features + max(reducing, reduced + projected + clustering)
    return FLOAT_BYTES * floats + INTEGER_BYTES * 2 * n_vectors


def _vectors(config: TrainConfig) -> int:
    """Number of vectors that are clustered, from whole batches."""
    per_batch = config.data.batch_size * (config.segment_samples // config.codec.frame_size)
    return math.ceil(VECTORS_PER_CODE * config.codec.quantizer.codebook_size / per_batch) * per_batch


def _multiplications(config: TrainConfig, quantizer: LearnedQuantizerConfig) -> float:
    width = quantizer.codebook_dim * quantizer.codebook_size * quantizer.n_codebooks
    return float(_vectors(config)) * width * (ITERATIONS + 1)


def _estimated_seconds(config: TrainConfig, quantizer: LearnedQuantizerConfig) -> float:
    """Extrapolate from the time of one search."""
    rows, table = (torch.zeros(n, quantizer.codebook_dim) for n in (SEARCH_ROWS, quantizer.codebook_size))
    started = time.monotonic()
    nearest_codes(rows, table)
    return (time.monotonic() - started) * _vectors(config) / SEARCH_ROWS * (ITERATIONS + 1) * quantizer.n_codebooks
