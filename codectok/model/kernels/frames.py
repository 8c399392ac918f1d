"""Kernels of the encoder on frames, channels last: depthwise convolution, layer norm, residual branch, split product.

Frames that convolutions read have a margin of zero rows at both ends, and are zero in gaps between clips.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

from codectok.model.convnext import ConvNeXtBlock

# Numbers that one program holds in registers; more of them would not fit beside the taps.
BLOCK = 4096
WARPS = 8


@triton.jit
def _tile_of_program(n_rows, n_channels, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Return the rows and columns of this program, the columns that are channels, and the numbers that exist."""
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    columns = tl.arange(0, COLUMNS)
    inside = columns < n_channels
    mask = (rows < n_rows)[:, None] & inside[None, :]
    return rows, columns, inside, mask


@triton.jit
def _normalize(x, mask, norm_weight, norm_bias, columns, inside, n_channels, epsilon):
    """Layer norm of the rows of `x` [rows, channels], in float32."""
    mean = tl.sum(x, 1) / n_channels
    centred = tl.where(mask, x - mean[:, None], 0.0)
    variance = tl.sum(centred * centred, 1) / n_channels
    scale = 1.0 / tl.sqrt(variance + epsilon)
    weight = tl.load(norm_weight + columns, mask=inside, other=0.0)
    bias = tl.load(norm_bias + columns, mask=inside, other=0.0)
    return centred * scale[:, None] * weight[None, :] + bias[None, :]


@triton.jit
def _depthwise_norm_kernel(
    frames, taps, bias, norm_weight, norm_bias, result, n_rows, n_channels, epsilon,
    KERNEL_SIZE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    rows, columns, inside, mask = _tile_of_program(n_rows, n_channels, ROWS, COLUMNS)
    first = tl.load(bias + columns, mask=inside, other=0.0)
    total = tl.zeros((ROWS, COLUMNS), tl.float32) + first[None, :]
    for tap in tl.static_range(KERNEL_SIZE):
        weight = tl.load(taps + tap * n_channels + columns, mask=inside, other=0.0)
        x = tl.load(frames + (rows + tap)[:, None] * n_channels + columns[None, :], mask=mask, other=0.0)
        total += x * weight[None, :]
    y = _normalize(total, mask, norm_weight, norm_bias, columns, inside, n_channels, epsilon)
    place = rows[:, None] * n_channels + columns[None, :]
    tl.store(result + place, y.to(result.dtype.element_ty), mask=mask)


@triton.jit
def _norm_kernel(
    frames, bias, gap, norm_weight, norm_bias, result, terms, n_rows, n_channels, epsilon,
    HAS_BIAS: tl.constexpr, HAS_GAP: tl.constexpr, SPLIT: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    rows, columns, inside, mask = _tile_of_program(n_rows, n_channels, ROWS, COLUMNS)
    place = rows[:, None] * n_channels + columns[None, :]
    x = tl.load(frames + place, mask=mask, other=0.0)
    if HAS_BIAS:
        x += tl.load(bias + columns, mask=inside, other=0.0)[None, :]
    y = _normalize(x, mask, norm_weight, norm_bias, columns, inside, n_channels, epsilon)
    if HAS_GAP:
        empty = tl.load(gap + rows, mask=rows < n_rows, other=1) != 0
        y = tl.where(empty[:, None], 0.0, y)
    if SPLIT:
        high = y.to(tl.bfloat16)
        low = (y - high.to(tl.float32)).to(tl.bfloat16)
        place = rows[:, None] * (3 * n_channels) + columns[None, :]
        tl.store(terms + place, high, mask=mask)
        tl.store(terms + place + n_channels, low, mask=mask)
        tl.store(terms + place + 2 * n_channels, high, mask=mask)
    else:
        tl.store(result + place, y, mask=mask)


@triton.jit
def _add_kernel(
    frames, branch, vector, gap, n_rows, n_channels,
    RESIDUAL: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    rows, columns, inside, mask = _tile_of_program(n_rows, n_channels, ROWS, COLUMNS)
    place = rows[:, None] * n_channels + columns[None, :]
    value = tl.load(vector + columns, mask=inside, other=0.0)[None, :]
    x = tl.load(frames + place, mask=mask, other=0.0)
    if RESIDUAL:
        x += value * tl.load(branch + place, mask=mask, other=0.0).to(tl.float32)
    else:
        x += value
    empty = tl.load(gap + rows, mask=rows < n_rows, other=1) != 0
    tl.store(frames + place, tl.where(empty[:, None], 0.0, x), mask=mask)


def with_margin(n_frames: int, n_channels: int, margin: int, like: Tensor) -> Tensor:
    """Return frames [margin + n_frames + margin, n_channels] float32 whose margins are zero."""
    frames = like.new_empty(n_frames + 2 * margin, n_channels, dtype=torch.float32)
    frames[:margin] = frames[-margin:] = 0
    return frames


class FusedBlock:
    """A ConvNeXt block without padding; the two products are in the precision of its weights.

    Args:
        block: the block; later changes of its depthwise weights are not seen.
    """

    def __init__(self, block: ConvNeXtBlock) -> None:
        self._block = block
        self._side = block.depthwise.receptive_field
        self._taps = block.depthwise.weight[:, 0].T.contiguous()

    def __call__(self, frames: Tensor, gap: Tensor, margin: int) -> None:
        """Replace `frames` [margin + n + margin, C] by the output, with zeros where `gap` [n]."""
        block, n_rows, n_channels = self._block, len(gap), frames.shape[1]
        half = frames.new_empty(n_rows, n_channels, dtype=block.expand.weight.dtype)
        rows, columns = _tile(n_channels)
        _depthwise_norm_kernel[(triton.cdiv(n_rows, rows),)](
            frames[margin - self._side :], self._taps, block.depthwise.bias, block.norm.weight, block.norm.bias, half,
            n_rows, n_channels, block.norm.eps, len(self._taps), rows, columns, num_warps=WARPS,
        )  # fmt: skip
        branch = block.contract(nn.functional.gelu(block.expand(half)))
        _add(frames[margin : margin + n_rows], branch, block.gamma, gap)


class SplitLinear:
    """A float32 product as one bfloat16 product: both factors are sums of two bfloat16 numbers.

    Args:
        weight: float32 [out, in].
        bias: float32 [out].
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        high = weight.bfloat16()
        low = (weight - high.float()).bfloat16()
        # Beside (high, low, high) of a row; the product of both low terms is below the rounding of the others.
        self._weight = torch.cat([high, high, low], 1).T
        self.bias = bias
        self.out_channels = len(weight)

    def __call__(self, terms: Tensor, gap: Tensor, margin: int) -> Tensor:
        """Map `terms` bfloat16 [n, 3 * in] to frames [margin + n + margin, out], with zeros where `gap` [n]."""
        result = with_margin(len(terms), self.out_channels, margin, terms)
        inner = result[margin : margin + len(terms)]
        _product(terms, self._weight, inner)
        _add(inner, None, self.bias, gap)
        return result

    def product(self, terms: Tensor) -> Tensor:
        """Map `terms` bfloat16 [n, 3 * in] to [n, out], without the bias."""
        return _product(terms, self._weight, terms.new_empty(len(terms), self.out_channels, dtype=torch.float32))


def split_terms(rows: Tensor) -> Tensor:
    """Return the terms (high, low, high) bfloat16 [n, 3 * C] of `rows` float32 [n, C]."""
    high = rows.bfloat16()
    return torch.cat([high, (rows - high).bfloat16(), high], 1)


def layer_norm(frames: Tensor, norm: nn.LayerNorm, gap: Tensor, into: Tensor, bias: Tensor | None = None) -> None:
    """Write the layer norm of `frames` + `bias` [n, C] to `into` [n, C], with zeros where `gap` [n]."""
    _norm(frames, norm, into, None, gap, bias)


def layer_norm_terms(frames: Tensor, norm: nn.LayerNorm) -> Tensor:
    """Return the layer norm of `frames` [n, C] as terms for `SplitLinear`, bfloat16 [n, 3 * C]."""
    terms = frames.new_empty(len(frames), 3 * frames.shape[1], dtype=torch.bfloat16)
    _norm(frames, norm, None, terms, None, None)
    return terms


def _norm(
    frames: Tensor, norm: nn.LayerNorm, into: Tensor | None, terms: Tensor | None, gap: Tensor | None,
    bias: Tensor | None,
) -> None:  # fmt: skip
    n_rows, n_channels = frames.shape
    rows, columns = _tile(n_channels)
    _norm_kernel[(triton.cdiv(n_rows, rows),)](
        frames, bias, gap, norm.weight, norm.bias, into, terms, n_rows, n_channels, norm.eps,
        bias is not None, gap is not None, terms is not None, rows, columns, num_warps=WARPS,
    )  # fmt: skip


def _add(frames: Tensor, branch: Tensor | None, vector: Tensor, gap: Tensor) -> None:
    """Add `vector` * `branch`, or `vector` alone, to `frames` [n, C] in place; set frames where `gap` [n] to zero."""
    n_rows, n_channels = frames.shape
    rows, columns = _tile(n_channels)
    _add_kernel[(triton.cdiv(n_rows, rows),)](
        frames, branch, vector, gap, n_rows, n_channels, branch is not None, rows, columns, num_warps=WARPS
    )


def _tile(n_channels: int) -> tuple[int, int]:
    """Return the rows and the columns that one program computes: all channels of some frames."""
    columns = triton.next_power_of_2(n_channels)
    return max(1, BLOCK // columns), columns


def _product(rows: Tensor, weight: Tensor, into: Tensor) -> Tensor:
    """Write the product of bfloat16 matrices to `into` float32."""
    if rows.is_cuda:
        return torch.mm(rows, weight, out_dtype=torch.float32, out=into)
    return torch.mm(rows.float(), weight.float(), out=into)  # the interpreter of kernels runs on a CPU
