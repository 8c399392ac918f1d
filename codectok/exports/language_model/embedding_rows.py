"""Rows of an embedding for the codes of a codec."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor

from codectok.errors import InputError

from .safetensors_file import StoredTensor

RowStart = Literal["auto", "codebook", "projection", "random"]
RowScale = float | Literal["rms"]
CODEBOOK_SCALE = 100.0
# Of rows that are made at once: 16 MB of float32.
BLOCK_VALUES = 1 << 22


@dataclass(frozen=True)
class RowOptions:
    """How rows for codes begin.

    Attributes:
        start: "codebook", the code vectors themselves; "projection", the code vectors turned at random into the
            embedding's width; "random"; "auto", the codebook where its width is the embedding's, else a projection.
        scale: what rows are divided by, or "rms": those of each codebook have the root mean square of the text rows.
            None is 100 for the codebook itself and "rms" otherwise.
        seed: of what is random.
    """

    start: RowStart = "auto"
    scale: RowScale | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.start not in get_args(RowStart):
            raise InputError(f"Rows cannot start as {self.start!r}; choose from {', '.join(get_args(RowStart))}.")
        if isinstance(self.scale, float | int):
            if not 0 < self.scale < math.inf:
                raise InputError(f"The scale is a number above 0 or rms, not {self.scale:g}.")
            if self.start == "random":
                raise InputError("Random rows have the size of the text rows; leave the scale out.")

    def resolved(self, codebook_dim: int, width: int) -> RowOptions:
        """The same with "auto" and None decided; `InputError` for codebooks of another width than the rows."""
        if self.start == "codebook" and codebook_dim != width:
            raise InputError(
                f"The code vectors have {codebook_dim} values and the embedding {width}; rows can be the codebook only"
                " where these agree, so start them as a projection."
            )
        start: RowStart = self.start
        if start == "auto":
            start = "codebook" if codebook_dim == width else "projection"
        default: RowScale = CODEBOOK_SCALE if start == "codebook" else "rms"
        return RowOptions(start, default if self.scale is None else self.scale, self.seed)


@dataclass(frozen=True)
class TextRows:
    """Mean [width] of the rows of a matrix (a scalar for a bias), and the root mean square of all its values."""

    mean: Tensor
    rms: float

    @classmethod
    def of(cls, tensor: StoredTensor) -> TextRows:
        """Those of a stored tensor, read in chunks."""
        total, squares = torch.zeros(tensor.shape[1:], dtype=torch.float64), 0.0
        for rows in tensor.chunks():
            total += rows.sum(0, dtype=torch.float64)
            squares += float(torch.linalg.vector_norm(rows, dtype=torch.float64)) ** 2
        return cls((total / tensor.shape[0]).float(), math.sqrt(squares / math.prod(tensor.shape)))


def audio_rows(codebooks: Tensor, text: TextRows, options: RowOptions, tensor: str) -> Iterator[Tensor]:
    """Rows float32 [n, width], in blocks, for code vectors [n_codebooks, codebook_size, codebook_dim].

    Args:
        text: rows that are there.
        options: how the new ones begin.
        tensor: name for which random rows are drawn: with the same seed others have other rows.

    Raises:
        InputError: codebooks of another width, or without any value but zero.
    """
    width = len(text.mean)
    options = options.resolved(codebooks.shape[2], width)
    rotation: Tensor | None = None
    if options.start == "projection":
        # Orthogonal: distances between codes stay as they are in a wider embedding. The same for all tensors, so that
        # what a code is read as and what it is written as agree.
        generator = torch.Generator().manual_seed(options.seed)
        rotation = torch.nn.init.orthogonal_(torch.empty(codebooks.shape[2], width), generator=generator)
    for number, codebook in enumerate(codebooks):
        blocks = (
            partial(_random_blocks, len(codebook), width, f"{options.seed} {tensor} {number}")
            if options.start == "random"
            else partial(_vector_blocks, codebook, rotation)
        )
        if isinstance(options.scale, float | int):
            for block in blocks():
                yield block / options.scale
        else:
            # Each codebook by itself: those of later residual layers are far smaller.
            factor = text.rms / _root_mean_square(blocks())
            for block in blocks():
                yield block * factor


def mean_rows(text: TextRows, count: int) -> Iterator[Tensor]:
    """`count` rows that are the mean of those that are there, in blocks."""
    for n in _block_sizes(count, text.mean.numel()):
        yield text.mean.expand(n, *text.mean.shape)


def _vector_blocks(codebook: Tensor, rotation: Tensor | None) -> Iterator[Tensor]:
    for block in codebook.split(_block_rows(codebook.shape[1])):
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
        raise InputError("A codebook holds zeros only, so that it cannot be scaled; train the codec first.")
    return math.sqrt(squares / count)
