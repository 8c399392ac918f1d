"""The encoder over packs: from samples to codes, the same for a clip whatever lies beside it."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import CodectokError
from ..precision import Precision, inference
from .convnext import ConvNeXtBlock
from .cuda_graph import CudaGraph
from .network import CodecNetwork
from .packing import BLOCK_ROWS, DOWNSAMPLE_KERNEL_SIZE, Pack, PackGeometry, Piece, fill_packs
from .quantization.temporal import Downsample

Tag = TypeVar("Tag")
Module = TypeVar("Module", bound=nn.Module)
Layer = Callable[[Tensor], Tensor]


class PackedEncoder:
    """Encodes packs with a network whose weights no longer change.

    A row of a matrix product has the same bits wherever it stands among a fixed number of rows, but not among another
    number of rows. So all that works frame by frame is done in blocks of one fixed size: on a GPU whole packs (which
    then all have the same length), on a CPU blocks of BLOCK_ROWS frames, which stay in the processor's cache.

    Args:
        network: in inference mode, on `device`.
        log_mel: maps windows of samples [T, window] to log-mel frames [T, n_mels].
        geometry: of the packs.
        device: on which to work.
        dtype: in "bfloat16" the two products of every block are, and the search starts so; all else is float32.
    """

    def __init__(
        self, network: CodecNetwork, log_mel: Layer, geometry: PackGeometry, device: torch.device, dtype: Precision
    ) -> None:
        self.geometry = geometry
        self.device = device
        self.dtype = dtype
        self._log_mel = log_mel
        self._encoder = _in_precision(network.encoder, dtype)
        self._downsamples = cast("Iterable[Downsample]", _in_precision(network.quantizer.downsample, dtype))
        kernel_sizes = [geometry.config.encoder.kernel_size, DOWNSAMPLE_KERNEL_SIZE]
        self._margin = max(kernel_sizes) // 2
        self._fixed_length = device.type == "cuda"
        self._block_rows = geometry.pack_frames if self._fixed_length else BLOCK_ROWS
        with inference(device, tf32=False, autocast=False):
            self._encode_frames = network.quantizer.frame_encoder(reduced=dtype != "float32")
        self._checked_threads: set[int] = set()
        self._graph: CudaGraph | None = None

    def encode(self, pieces: Iterable[tuple[Tag, Piece]]) -> Iterator[tuple[Tag, Piece, Tensor]]:
        """Codes [keep, n_codebooks] int64 on the CPU for every piece, in order, as packs become full."""
        running: deque[tuple[Pack[Tag], Tensor]] = deque()
        for pack in fill_packs(pieces, self.geometry, self._fixed_length):
            running.append((pack, self._start(pack)))
            # A GPU works on this pack while the next one is being laid out.
            if len(running) > self._fixed_length:
                yield from _codes_of_pieces(*running.popleft())
        while running:
            yield from _codes_of_pieces(*running.popleft())

    def _start(self, pack: Pack[Tag]) -> Tensor:
        """Codes [frames of codes, n_codebooks] of a pack; on a GPU they may not be there yet."""
        with inference(self.device, tf32=self.dtype == "tf32", autocast=False):
            self._check_products()
            inputs = [torch.from_numpy(array) for array in (pack.tape, *pack.gaps)]
            if not self._fixed_length:
                return self._forward(*inputs)
            with torch.cuda.device(self.device):
                moved = [tensor.pin_memory().to(self.device, non_blocking=True) for tensor in inputs]
                if self._graph is None:
                    self._graph = CudaGraph(self._forward, moved)
                return self._graph(moved)

    def _forward(self, tape: Tensor, *gaps: Tensor) -> Tensor:
        """Codes [frames of codes, n_codebooks] of `tape` [samples]; `gaps` bool [frames] for each level."""
        encoder, margin = self._encoder, self._margin
        padded = F.pad(tape, (margin * self.geometry.hop, margin * self.geometry.hop))
        x = self._apply(self._log_mel, padded.unfold(0, self.geometry.window, self.geometry.hop), gaps[0])
        x = self._apply(lambda rows: encoder.stem_norm(encoder.stem.valid(rows)), x, gaps[0], encoder.stem.reach)
        for transition, stage in zip([None, *encoder.transitions], encoder.stages, strict=True):
            if transition is not None:
                x = self._apply(transition, x, gaps[0])
            x = self._apply_blocks(stage, x, gaps[0])
        x = self._apply(encoder.norm, x, gaps[0])
        for downsample, gap in zip(self._downsamples, gaps[1:], strict=True):
            x = self._apply(downsample.join, x, gap, factor=downsample.factor)
            x = self._apply_blocks([downsample.block], x, gap)
        return self._apply(self._encode_frames, x, gaps[-1])[margin:-margin]

    def _apply_blocks(self, blocks: nn.Module | Sequence[nn.Module], x: Tensor, gap: Tensor) -> Tensor:
        spare: Tensor | None = None
        for block in cast("Iterable[ConvNeXtBlock]", blocks):
            # Fresh memory is slow at first touch: two buffers take turns.
            x, spare = self._apply(block.valid, x, gap, block.depthwise.reach, into=spare), x
        return x

    def _apply(
        self, layer: Layer, x: Tensor, gap: Tensor, reach: int = 0, factor: int = 1, into: Tensor | None = None
    ) -> Tensor:
        """Apply `layer` block by block, and set the frames in gaps to zero.

        `layer` maps `reach` + n * `factor` + `reach` rows to n. `x` and the result have a margin of zero rows at both
        ends, which is what the first and the last frame of a pack see beyond it. The result may be written `into`
        such a tensor.
        """
        frames, margin = len(gap), self._margin
        rows = min(self._block_rows, frames)
        for start in range(0, frames, rows):
            first = margin + start * factor
            block = layer(x[first - reach : first + rows * factor + reach])
            if into is None:
                into = block.new_empty(frames + 2 * margin, block.shape[1])
                into[:margin] = into[-margin:] = 0
            part = into[margin + start : margin + start + rows]
            torch.where(gap[start : start + rows].unsqueeze(1), block.new_zeros(()), block, out=part)
        assert into is not None, "a pack has at least one block of rows"
        return into

    def _check_products(self) -> None:
        """Make sure, once for each number of threads, that a product's rows do not depend on their position."""
        threads = torch.get_num_threads()
        if threads in self._checked_threads:
            return
        generator = torch.Generator().manual_seed(0)
        for layer, dim, dtype, n_rows in self._products():
            rows = torch.randn(n_rows, dim, generator=generator).to(self.device, dtype)
            shift = n_rows // 2 + 1
            if not torch.equal(layer(rows).roll(shift, 0), layer(rows.roll(shift, 0))):
                raise CodectokError(
                    f"Matrix products on this {self.device.type} depend on the position of a row (width {dim},"
                    f" {n_rows} rows, {threads} threads), so codes would depend on a clip's neighbours;"
                    " try another number of threads, or another pack size on a GPU."
                )
        self._checked_threads.add(threads)

    def _products(self) -> list[tuple[Layer, int, torch.dtype, int]]:
        """The matrix products of every shape: layer, width, precision, rows."""
        levels = self.geometry.levels
        parts = zip((self._encoder, *self._downsamples), levels, strict=True)
        found: dict[object, tuple[Layer, int, torch.dtype, int]] = {}
        for part, level in parts:
            rows = min(self._block_rows, self.geometry.pack_frames // level)
            for module in part.modules():
                if isinstance(module, nn.Linear):
                    dtype = module.weight.dtype
                    found[module.weight.shape, dtype, rows] = module, module.in_features, dtype, rows
        rows = min(self._block_rows, self.geometry.pack_frames // levels[-1])
        return [*found.values(), (self._encode_frames, self.geometry.config.feature_dim, torch.float32, rows)]


def _in_precision(module: Module, dtype: Precision) -> Module:
    """`module`, or in bfloat16 a copy in which the products of its blocks are."""
    if dtype != "bfloat16":
        return module
    module = copy.deepcopy(module)
    for block in module.modules():
        if isinstance(block, ConvNeXtBlock):
            block.expand.bfloat16()
            block.contract.bfloat16()
    return module


def _codes_of_pieces(pack: Pack[Tag], codes: Tensor) -> Iterator[tuple[Tag, Piece, Tensor]]:
    codes = codes.cpu()
    for placement in pack.placements:
        start = placement.position + placement.piece.skip
        yield placement.tag, placement.piece, codes[start : start + placement.piece.keep].clone()
