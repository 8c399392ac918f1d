"""Rows of an embedding for the codes of a codec."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from ..errors import InputError
from .safetensors_file import StoredTensor

RowStart = Literal["auto", "codebook", "projection", "random"]
RowScale = float | Literal["rms"]
CODEBOOK_SCALE = 100.0


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


def audio_rows(codebooks: Tensor, text: TextRows, options: RowOptions) -> Tensor:
    """Rows float32 [n_codebooks * codebook_size, width] for code vectors [n_codebooks, codebook_size, codebook_dim].

    Raises:
        InputError: codebooks of another width, or without any value but zero.
    """
    width = len(text.mean)
    n_codebooks, codebook_size, codebook_dim = codebooks.shape
    options = options.resolved(codebook_dim, width)
    generator = torch.Generator().manual_seed(options.seed)
    if options.start == "random":
        rows = torch.randn(n_codebooks, codebook_size, width, generator=generator)
    elif options.start == "projection":
        # Orthogonal: distances between codes stay as they are in a wider embedding.
        rotation = torch.nn.init.orthogonal_(torch.empty(codebook_dim, width), generator=generator)
        rows = codebooks.float() @ rotation
    else:
        rows = codebooks.float()
    return _scaled(rows, text, options.scale).flatten(0, 1)


def _scaled(rows: Tensor, text: TextRows, scale: RowScale | None) -> Tensor:
    if isinstance(scale, float | int):
        return rows / scale
    # Each codebook by itself: those of later residual layers are far smaller.
    sizes = torch.stack([torch.linalg.vector_norm(book) / math.sqrt(book.numel()) for book in rows])
    if not bool((sizes > 0).all()):
        raise InputError("A codebook holds zeros only, so that it cannot be scaled; train the codec first.")
    return rows * (text.rms / sizes)[:, None, None]
