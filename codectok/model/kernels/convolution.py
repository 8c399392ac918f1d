"""Kernels of the decoder, channels last: dense convolutions over time in bfloat16 with all that follows each of them.

A convolution is a product for each tap, summed in float32. Rows have a margin of zeros at both ends, and rows in gaps
between clips are set to zero after every convolution, so that each clip sees the zero padding that it would see alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

# Channels must be a multiple of this, the smallest tile of a product.
CHANNEL_UNIT = 16


@triton.jit
def _convolution_kernel(
    rows_in, weight, bias, residual, total, gap, result, total_result, activated, n_rows, scale,
    C_IN: tl.constexpr, C_OUT: tl.constexpr, TAPS: tl.constexpr, DILATION: tl.constexpr, PERIOD: tl.constexpr,
    BIASES: tl.constexpr, HAS_RESIDUAL: tl.constexpr, HAS_TOTAL: tl.constexpr, STORE: tl.constexpr,
    STORE_TOTAL: tl.constexpr, ACTIVATE: tl.constexpr,
    TILE_M: tl.constexpr, TILE_N: tl.constexpr, TILE_K: tl.constexpr,
):  # fmt: skip
    # Tiles of one set of rows are neighbours, so that they find the rows in the GPU's cache.
    program = tl.program_id(0)
    tiles_n: tl.constexpr = C_OUT // TILE_N
    rows = program // tiles_n * TILE_M + tl.arange(0, TILE_M)
    columns = program % tiles_n * TILE_N + tl.arange(0, TILE_N)
    inner = tl.arange(0, TILE_K)
    # Rows beyond the end repeat the last one; they are not stored.
    read = tl.minimum(rows, n_rows - 1).to(tl.int64)
    left = rows_in + read[:, None] * C_IN + inner[None, :]
    right = weight + inner[:, None] * C_OUT + columns[None, :]
    value = tl.zeros((TILE_M, TILE_N), tl.float32)
    depth: tl.constexpr = C_IN // TILE_K
    for step in range(0, TAPS * depth):
        tap = step // depth
        channel = step % depth * TILE_K
        x = tl.load(left + tap * (DILATION * C_IN) + channel)
        w = tl.load(right + (tap * C_IN + channel) * C_OUT)
        value = tl.dot(x, w, value)
    value += tl.load(bias + columns % BIASES)[None, :]
    place = rows[:, None].to(tl.int64) * C_OUT + columns[None, :]
    mask = (rows < n_rows)[:, None]
    if HAS_RESIDUAL:
        value += tl.load(residual + place, mask=mask, other=0.0).to(tl.float32)
    empty = tl.load(gap + read // PERIOD) != 0
    value = tl.where(empty[:, None], 0.0, value)
    if STORE:
        tl.store(result + place, value.to(tl.bfloat16), mask=mask)
    if HAS_TOTAL:
        value += tl.load(total + place, mask=mask, other=0.0).to(tl.float32)
    if STORE_TOTAL:
        tl.store(total_result + place, value.to(tl.bfloat16), mask=mask)
    if ACTIVATE:
        value *= scale
        value = value / (1.0 + tl.exp(-value))
        tl.store(activated + place, value.to(activated.dtype.element_ty), mask=mask)


@triton.jit
def _last_kernel(
    rows_in, weight, bias, waveform, n_rows,
    C_IN: tl.constexpr, TAPS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    channels = tl.arange(0, COLUMNS)
    inside = channels < C_IN
    mask = (rows < n_rows)[:, None] & inside[None, :]
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for tap in tl.static_range(TAPS):
        x = tl.load(rows_in + (rows + tap)[:, None] * C_IN + channels[None, :], mask=mask, other=0.0)
        w = tl.load(weight + tap * C_IN + channels, mask=inside, other=0.0)
        total += x * w[None, :]
    value = tl.sum(total, 1) + tl.load(bias)
    # tanh by the exponential of a negative number, which does not overflow.
    small = tl.exp(-2.0 * tl.abs(value))
    magnitude = (1.0 - small) / (1.0 + small)
    tl.store(waveform + rows, tl.where(value < 0, -magnitude, magnitude), mask=rows < n_rows)


@dataclass
class Rows:
    """Rows [margin + n + margin, C] with zeros in the margins.

    Attributes:
        values: the rows with their margins.
        margin: length of a margin.
    """

    values: Tensor
    margin: int

    @classmethod
    def new(cls, n_rows: int, n_channels: int, margin: int, device: torch.device, dtype: torch.dtype) -> Rows:
        """Return rows to be written, with zeros in the margins."""
        values = torch.empty(n_rows + 2 * margin, n_channels, dtype=dtype, device=device)
        values[:margin] = values[-margin:] = 0
        return cls(values, margin)

    @property
    def inner(self) -> Tensor:
        """The rows without their margins [n, C]."""
        return self.values[self.margin : len(self.values) - self.margin]


@dataclass(frozen=True)
class Epilogue:
    """Operations on the output of a convolution.

    Attributes:
        residual: rows to add [n, C].
        result: receives the sum.
        total: rows to add to the sum after it is stored.
        total_result: receives the sum with `total`.
        activated: receives SiLU of `scale` times the sum with `total`.
        scale: factor before the activation.
    """

    residual: Tensor | None = None
    result: Tensor | None = None
    total: Tensor | None = None
    total_result: Tensor | None = None
    activated: Tensor | None = None
    scale: float = 1.0


@dataclass(frozen=True)
class Tiles:
    """Part of a product that one program computes.

    Attributes:
        rows, columns, depth: sizes of the factors; `depth` channels are added in one step.
        warps, stages: groups of threads, and steps whose factors are loaded ahead.
    """

    rows: int
    columns: int
    depth: int
    warps: int
    stages: int

    @classmethod
    def of(cls, n_in: int, n_out: int) -> Tiles:
        """Return the tiles for `n_in` channels to `n_out`; fixed, so that codes and samples are equal in every run."""
        columns = min(_power_of_two_in(n_out), 128)
        depth = min(_power_of_two_in(n_in), 64)
        # All stages of larger tiles would not fit into the shared memory of small GPUs.
        return cls(256 if columns <= 32 and depth <= 32 else 128, columns, depth, 8 if columns >= 128 else 4, 3)


class Convolution:
    """A convolution over time of rows bfloat16.

    Args:
        weight: [taps, in, out].
        bias: [channels]; output column c has the bias of channel c % channels.
        dilation: distance of two taps in rows.
        first: distance in rows of the first tap from the output row; negative for rows before it.
    """

    def __init__(self, weight: Tensor, bias: Tensor, dilation: int, first: int) -> None:
        self._weight = weight.bfloat16().contiguous()
        self._bias = bias.float().contiguous()
        self._dilation, self._first = dilation, first
        # Rows on each side of an output row that it depends on.
        self.reach = max(-first, first + dilation * (len(weight) - 1), 0)
        self.out_channels = self._weight.shape[2]

    @classmethod
    def of(cls, layer: nn.Conv1d) -> Convolution:
        """Return the convolution of a layer whose output is as long as its input."""
        (size,), (dilation,) = layer.kernel_size, layer.dilation
        assert layer.bias is not None
        return cls(layer.weight.permute(2, 1, 0), layer.bias, dilation, -dilation * (size // 2))

    @classmethod
    def of_transposed(cls, layer: nn.ConvTranspose1d) -> Convolution:
        """Return a convolution to `stride` * out columns: each row holds the successive output rows of an input row."""
        (size,), (rate,) = layer.kernel_size, layer.stride
        assert not isinstance(layer.padding, str)
        (padding,) = layer.padding
        assert layer.bias is not None
        # Output row n = t * rate + phase sees input row s through tap n + padding - s * rate.
        first = -((size - 1 - padding) // rate)
        last = (rate - 1 + padding) // rate
        n_in, n_out, _ = layer.weight.shape
        weight = layer.weight.new_zeros(last - first + 1, n_in, rate, n_out)
        for offset in range(first, last + 1):
            for phase in range(rate):
                tap = phase + padding - offset * rate
                if 0 <= tap < size:
                    weight[offset - first, :, phase] = layer.weight[:, :, tap]
        return cls(weight.flatten(2), layer.bias, 1, first)

    def __call__(self, rows: Rows, gap: Tensor, epilogue: Epilogue) -> None:
        """Convolve `rows`; `gap` bool [frames] marks frames whose rows are zero in the output."""
        taps, n_in, n_out = self._weight.shape
        n_rows = len(rows.inner)
        assert self.reach <= rows.margin, "a kernel would read beyond its rows"
        tiles = Tiles.of(n_in, n_out)
        programs = triton.cdiv(n_rows, tiles.rows) * (n_out // tiles.columns)
        _convolution_kernel[(programs,)](
            rows.values[rows.margin + self._first :], self._weight, self._bias, epilogue.residual, epilogue.total, gap,
            epilogue.result, epilogue.total_result, epilogue.activated, n_rows, epilogue.scale,
            n_in, n_out, taps, self._dilation, n_rows // len(gap), len(self._bias), epilogue.residual is not None,
            epilogue.total is not None, epilogue.result is not None, epilogue.total_result is not None,
            epilogue.activated is not None, tiles.rows, tiles.columns, tiles.depth,
            num_warps=tiles.warps, num_stages=tiles.stages,
        )  # fmt: skip


class LastConvolution:
    """A convolution to one channel, followed by tanh, in float32.

    Args:
        layer: its output is as long as its input.
    """

    def __init__(self, layer: nn.Conv1d) -> None:
        self._weight = layer.weight[0].T.float().contiguous()
        assert layer.bias is not None
        self._bias = layer.bias.float()

    def __call__(self, rows: Rows) -> Tensor:
        """Return the waveform [n] of `rows` float32."""
        taps, n_in = self._weight.shape
        n_rows = len(rows.inner)
        waveform = torch.empty(n_rows, device=rows.values.device)
        columns = triton.next_power_of_2(n_in)
        per_program = max(1, 4096 // columns)
        _last_kernel[(triton.cdiv(n_rows, per_program),)](
            rows.values[rows.margin - taps // 2 :], self._weight, self._bias, waveform, n_rows,
            n_in, taps, per_program, columns, num_warps=4,
        )  # fmt: skip
        return waveform


def _power_of_two_in(number: int) -> int:
    """Return the largest power of two that divides `number`."""
    return number & -number
