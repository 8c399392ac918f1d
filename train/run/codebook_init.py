"""What it takes to start codebooks on the k-means of features: tried, or estimated where that takes long."""

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

# Multiplications that a CPU makes in some seconds.
MOST_ON_CPU = 1e12
FLOAT, INTEGER = 4, 8


@dataclass(frozen=True)
class CodebookStart:
    """Price of a start.

    Attributes:
        seconds: for all codebooks.
        estimated_bytes: beside the networks; None where it was tried and what it took can be measured.
    """

    seconds: float
    estimated_bytes: int | None


def try_start(trainer: Trainer, batches: Iterable[Tensor]) -> CodebookStart | None:
    """Start `trainer`'s codebooks, or estimate that on a CPU where the k-means is large; None without codebooks."""
    config, device = trainer.config, trainer.device
    if isinstance(config.codec.quantizer, FiniteScalarQuantizerConfig):
        return None
    if device.type == "cpu" and _multiplications(config) > MOST_ON_CPU:
        return CodebookStart(_estimated_seconds(config), start_bytes(config))
    started = time.monotonic()
    trainer.initialize_codebooks(batches)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return CodebookStart(time.monotonic() - started, None)


def start_bytes(config: TrainConfig) -> int:
    """Most memory that the start of `config`'s codebooks takes at once beside the networks."""
    quantizer, dim = _quantizer(config), config.codec.feature_dim
    n_groups = quantizer.n_groups if isinstance(quantizer, VectorQuantizerConfig) else 1
    n_codes, codebook_dim = quantizer.codebook_size, quantizer.codebook_dim
    n_vectors = _vectors(config)
    n_frames = n_vectors * config.codec.time_factor
    # The batches' features, and those joined.
    held = 2 * n_frames * dim
    # A block behind a change of the frame rate: its input and its norm, and four times as wide what it expands them to.
    reducing = (2 + 4 + 4) * (n_frames // quantizer.time_factors[0]) * dim if quantizer.time_factors else 0
    reduced = n_vectors * dim if quantizer.time_factors else 0
    projected = n_vectors * codebook_dim if codebook_dim != dim // n_groups else 0
    table = n_codes * codebook_dim
    n_residuals = quantizer.n_residuals if isinstance(quantizer, VectorQuantizerConfig) else 1
    # What a codebook leaves over for the next one.
    left_over = 2 * n_vectors * codebook_dim if n_residuals > 1 else 0
    # New means beside the old ones, their sums and quotients, and vectors in place of empty ones; or the search beside
    # means and sums.
    clustering = max(5 * table, 2 * table + SEARCH_ROWS * n_codes, left_over)
    return FLOAT * (held + max(reducing, reduced + projected + clustering)) + INTEGER * 2 * n_vectors


def _quantizer(config: TrainConfig) -> VectorQuantizerConfig | SimVectorQuantizerConfig:
    quantizer = config.codec.quantizer
    assert not isinstance(quantizer, FiniteScalarQuantizerConfig), "it has no codebooks to start"
    return quantizer


def _vectors(config: TrainConfig) -> int:
    """Vectors that are clustered: those of whole batches."""
    per_batch = config.data.batch_size * (config.segment_samples // config.codec.frame_size)
    return math.ceil(VECTORS_PER_CODE * config.codec.quantizer.codebook_size / per_batch) * per_batch


def _multiplications(config: TrainConfig) -> float:
    quantizer = _quantizer(config)
    width = quantizer.codebook_dim * quantizer.codebook_size * quantizer.n_codebooks
    return float(_vectors(config)) * width * (ITERATIONS + 1)


def _estimated_seconds(config: TrainConfig) -> float:
    """From the time of one search."""
    quantizer = _quantizer(config)
    rows, table = (torch.zeros(n, quantizer.codebook_dim) for n in (SEARCH_ROWS, quantizer.codebook_size))
    started = time.monotonic()
    nearest_codes(rows, table)
    return (time.monotonic() - started) * _vectors(config) / SEARCH_ROWS * (ITERATIONS + 1) * quantizer.n_codebooks
