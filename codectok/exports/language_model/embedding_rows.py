"""Embedding rows for the codes of a codec."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from codectok.errors import InputError
from codectok.exports.choices import RowStart, check_choice

from .safetensors_file import StoredTensor

RowScale = float | Literal["rms"]
CODEBOOK_SCALE = 100.0
# Rows are made in blocks of this many values: 16 MB of float32.
BLOCK_VALUES = 1 << 22


@dataclass(frozen=True)
class RowOptions:
    """How rows of codes are initialized.

    Attributes:
        start: "codebook": the code vectors; "projection": the code vectors in a random orthogonal projection to the
            embedding's width; "random": Gaussian noise; "auto": codebook if its width is the embedding's, else
            projection.
        scale: divisor of the rows, or "rms" to give the rows of each codebook the root mean square of the text rows.
            None means 100 for "codebook" and "rms" otherwise.
        seed: for projected and random rows.
    """

    start: RowStart = RowStart.AUTO
    scale: RowScale | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice(self.start, RowStart)
        if isinstance(self.scale, float | int):
            if not 0 < self.scale < math.inf:
                raise InputError(f"The scale must be a number above 0 or rms, not {self.scale:g}.")
            if self.start == RowStart.RANDOM:
                raise InputError("Random rows have the scale of the text rows; leave the scale out.")

    def resolved(self, codebook_dim: int, width: int) -> RowOptions:
        """Return the options with "auto" and None replaced.

        Raises:
            InputError: `start` is "codebook", and the code vectors have another width than the embedding.
        """
        if self.start == RowStart.CODEBOOK and codebook_dim != width:
            raise InputError(
                f"The code vectors have {codebook_dim} values and the embedding {width}; start rows as a projection."
            )
        start = self.start
        if start == RowStart.AUTO:
            start = RowStart.CODEBOOK if codebook_dim == width else RowStart.PROJECTION
        default: RowScale = CODEBOOK_SCALE if start == RowStart.CODEBOOK else "rms"
        return RowOptions(start, default if self.scale is None else self.scale, self.seed)


@dataclass(frozen=True)
class TextRows:
    """Mean [width] of the rows of a matrix that have a token (a scalar for a bias), and root mean square of all values.

    Rows of padding are left out: no training reached them.
    """

    mean: Tensor
    rms: float

    @classmethod
    def of(cls, tensor: StoredTensor, has_token: Tensor | None = None) -> TextRows:
        """Compute them for a stored tensor, read in chunks.

        Args:
            has_token: bool [rows], True for rows with a token; None for all rows.
        """
        total, squares, n_rows, first = torch.zeros(tensor.shape[1:], dtype=torch.float64), 0.0, 0, 0
        for chunk in tensor.chunks():
            rows = chunk if has_token is None else chunk[has_token[first : first + len(chunk)]]
            first += len(chunk)
            n_rows += len(rows)
            total += rows.sum(0, dtype=torch.float64)
            squares += float(torch.linalg.vector_norm(rows, dtype=torch.float64)) ** 2
        return cls((total / n_rows).float(), math.sqrt(squares / (n_rows * math.prod(tensor.shape[1:]))))


def audio_rows(
    codebooks: Tensor, text: TextRows, options: RowOptions, tensor: str, stride: int | None = None
) -> Iterator[Tensor]:
    """Yield rows float32 [n, width] for all codes, in blocks.

    Args:
        codebooks: code vectors [n_codebooks, codebook_size, codebook_dim].
        text: statistics of the model's rows.
        options: how rows are initialized.
        tensor: name that seeds random rows together with `options.seed`, so that tensors get different rows.
        stride: rows of each codebook; rows without a code are the mean of the text rows.

    Raises:
        InputError: the code vectors do not have the width that `options` require, or a codebook holds zeros only.
    """
    width = len(text.mean)
    options = options.resolved(codebooks.shape[2], width)
    rotation: Tensor | None = None
    if options.start == RowStart.PROJECTION:
        # Orthogonal, to preserve distances between codes in a wider embedding; the same for all tensors, so that input
        # and output rows of a code agree.
        generator = torch.Generator().manual_seed(options.seed)
        rotation = torch.nn.init.orthogonal_(torch.empty(codebooks.shape[2], width), generator=generator)
    for number, codebook in enumerate(codebooks):
        blocks = (
            partial(_random_blocks, len(codebook), width, f"{options.seed} {tensor} {number}")
            if options.start == RowStart.RANDOM
            else partial(_vector_blocks, codebook, rotation)
        )
        if isinstance(options.scale, float | int):
            for block in blocks():
                yield block / options.scale
        else:
            # Each codebook separately: later residual layers have far smaller vectors.
            factor = text.rms / _root_mean_square(blocks())
            for block in blocks():
                yield block * factor
        yield from mean_rows(text, (stride or len(codebook)) - len(codebook))


def mean_rows(text: TextRows, count: int) -> Iterator[Tensor]:
    """Yield `count` rows that equal the mean of the text rows, in blocks."""
    for n in _block_sizes(count, text.mean.numel()):
        yield text.mean.expand(n, *text.mean.shape)


def _vector_blocks(codebook: Tensor, rotation: Tensor | None) -> Iterator[Tensor]:
    for block in torch.split(codebook, _block_rows(codebook.shape[1])):
        yield block.float() if rotation is None else block.float() @ rotation


def _random_blocks(n_rows: int, width: int, name: str) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]))
    for n in _block_sizes(n_rows, width):
        yield torch.randn(n, width, generator=generator)


def _block_sizes(n_rows: int, width: int) -> Iterator[int]:
    step = _block_rows(width)
    return (min(step, n_rows - first) for first in range(0, n_rows, step))


def _block_rows(width: int) -> int:
    return max(1, BLOCK_VALUES // width)


def _root_mean_square(blocks: Iterable[Tensor]) -> float:
    squares, count = 0.0, 0
    for block in blocks:
        squares += float(torch.linalg.vector_norm(block, dtype=torch.float64)) ** 2
        count += block.numel()
    if not squares > 0:
        raise InputError("A codebook holds zeros only and cannot be scaled; train the codec first.")
    return math.sqrt(squares / count)
