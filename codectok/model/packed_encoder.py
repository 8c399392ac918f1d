"""Encodes packs from samples to codes; a clip's codes do not depend on the rest of the pack."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codectok.choices import Precision
from codectok.device import float32_products, inference
from codectok.errors import CodectokError
from codectok.model.quantization.temporal import BLOCK_KERNEL_SIZE, Downsample

from .convnext import ConvNeXtBlock
from .cuda_graph import CudaGraph
from .network import CodecNetwork
from .packing import BLOCK_ROWS, PackGeometry, cut_into_chunks, fill_packs

Module = TypeVar("Module", bound=nn.Module)
Layer = Callable[[Tensor], Tensor]


class PackedEncoder:
    """Encodes packs with a network whose weights no longer change.

    The bits of a row in a matrix product do not depend on the row's position, but they depend on the number of rows. So
    all frame-wise operations run in blocks of one fixed size: on a GPU whole packs (which all have the same length), on
    a CPU blocks of BLOCK_ROWS frames, which stay in the processor's cache.

    Args:
        network: network in inference mode, on `device`.
        log_mel: maps windows of samples [T, window] to log-mel frames [T, n_mels].
        geometry: geometry of the packs.
        device: device that computes.
        dtype: "bfloat16" computes the two products of every block in bfloat16, "tf32" all products between the log-mel
            and the search in TF32. With both, a GPU searches codes of large codebooks in bfloat16 first and rescores
            the best in float32. Everything else is float32.
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
        kernel_sizes = [geometry.config.encoder.kernel_size, BLOCK_KERNEL_SIZE]
        self._margin = max(kernel_sizes) // 2
        self._on_gpu = device.type == "cuda"
        self._block_rows = geometry.pack_frames if self._on_gpu else BLOCK_ROWS
        with inference(device, tf32=False, autocast=False):
            self._encode_frames = network.quantizer.frame_encoder(reduced=self._on_gpu and dtype != "float32")
        self._checked_threads: set[int] = set()
        self._graph: CudaGraph | None = None

    @property
    def batches_ahead(self) -> int:
        """Number of packs to start before waiting: a GPU encodes one pack while the CPU assembles the next."""
        return 1 if self._on_gpu else 0

    def start(self, *arrays: np.ndarray) -> Callable[[], Tensor]:
        """Start encoding a pack, given its samples and its gaps.

        Returns:
            A function that waits for the codes, int64 [code frames, n_codebooks] on the CPU.
        """
        inputs = [torch.from_numpy(array) for array in arrays]
        with inference(self.device, tf32=self.dtype == "tf32", autocast=False), self._current_device():
            self._check_positions()
            if not self._on_gpu:
                codes = self._codes(*inputs)
                return lambda: codes
            if self._graph is None:
                self._graph = CudaGraph(self._codes, inputs)
            return self._graph(inputs).wait

    def features(self, *arrays: np.ndarray) -> Tensor:
        """Return the features of a pack before quantization, float32 [code frames, C] on the CPU."""
        with inference(self.device, tf32=self.dtype == "tf32", autocast=False), self._current_device():
            return self._features(*(torch.from_numpy(array).to(self.device) for array in arrays)).cpu()

    def _current_device(self) -> AbstractContextManager[object]:
        return torch.cuda.device(self.device) if self._on_gpu else nullcontext()

    def _check_positions(self) -> None:
        """Check, once for each number of threads, that a clip's codes do not depend on its position in a pack.

        Raises:
            CodectokError: the bits of a row in a matrix product depend on its position on this machine.
        """
        threads = 1 if self._on_gpu else torch.get_num_threads()
        if threads in self._checked_threads:
            return
        geometry = self.geometry
        noise = torch.randn(100 * geometry.alignment * geometry.hop, generator=torch.Generator().manual_seed(0))
        chunk = next(cut_into_chunks([noise.numpy()], geometry))
        length = geometry.pack_frames if self._on_gpu else geometry.unit
        copies = length // (geometry.aligned(chunk.n_frames) + geometry.gap)
        pack = next(fill_packs([(None, chunk)] * copies, geometry, self._on_gpu))
        inputs = (torch.from_numpy(array).to(self.device) for array in (pack.samples, *pack.gaps))
        features = self._features(*inputs)
        starts = [placement.position for placement in pack.placements]
        for rows in (features, self._encode_rows(features)):
            found = [rows[start : start + chunk.keep] for start in starts]
            if not all(torch.equal(copy, found[0]) for copy in found):
                raise CodectokError(
                    f"The rows of a matrix product on this {self.device.type} depend on their position"
                    f" ({self._block_rows} rows, {threads} threads), so codes would depend on a clip's neighbours;"
                    " try another number of threads, or another pack size on a GPU."
                )
        self._checked_threads.add(threads)

    def _codes(self, samples: Tensor, *gaps: Tensor) -> Tensor:
        """Encode `samples` [n] with `gaps` bool [frames] for each level to [code frames, n_codebooks]."""
        return self._encode_rows(self._features(samples, *gaps))

    def _encode_rows(self, features: Tensor) -> Tensor:
        rows = min(self._block_rows, len(features))
        with float32_products():
            return torch.cat(
                [self._encode_frames(features[start : start + rows]) for start in range(0, len(features), rows)]
            )

    def _features(self, samples: Tensor, *gaps: Tensor) -> Tensor:
        """Return features before quantization, float32 [code frames, C]."""
        encoder, margin = self._encoder, self._margin
        padded = F.pad(samples, (margin * self.geometry.hop, margin * self.geometry.hop))
        with float32_products():
            x = self._apply(self._log_mel, padded.unfold(0, self.geometry.window, self.geometry.hop), gaps[0])
        x = self._apply(
            lambda rows: encoder.stem_norm(encoder.stem.valid(rows)), x, gaps[0], encoder.stem.receptive_field
        )
        for transition, stage in zip([None, *encoder.transitions], encoder.stages, strict=True):
            if transition is not None:
                x = self._apply(transition, x, gaps[0])
            x = self._apply_blocks(stage, x, gaps[0])
        x = self._apply(encoder.norm, x, gaps[0])
        for downsample, gap in zip(self._downsamples, gaps[1:], strict=True):
            x = self._apply(downsample.join, x, gap, factor=downsample.factor)
            x = self._apply_blocks([downsample.block], x, gap)
        return x[margin:-margin]

    def _apply_blocks(self, blocks: nn.Module | Sequence[nn.Module], x: Tensor, gap: Tensor) -> Tensor:
        spare: Tensor | None = None
        for block in cast("Iterable[ConvNeXtBlock]", blocks):
            # Alternate between two buffers: new memory is slow at first touch.
            x, spare = self._apply(block.valid, x, gap, block.depthwise.receptive_field, into=spare), x
        return x

    def _apply(
        self, layer: Layer, x: Tensor, gap: Tensor, overlap: int = 0, factor: int = 1, into: Tensor | None = None
    ) -> Tensor:
        """Apply `layer` block by block, and set the frames in gaps to zero.

        `layer` maps `overlap` + n * `factor` + `overlap` rows to n. `x` and the result have a margin of zero rows at
        both ends, the zero padding of the first and the last frame. The result is written to `into` if given.
        """
        frames, margin = len(gap), self._margin
        rows = min(self._block_rows, frames)
        for start in range(0, frames, rows):
            first = margin + start * factor
            block = layer(x[first - overlap : first + rows * factor + overlap])
            if into is None:
                into = block.new_empty(frames + 2 * margin, block.shape[1])
                into[:margin] = into[-margin:] = 0
            part = into[margin + start : margin + start + rows]
            torch.where(gap[start : start + rows].unsqueeze(1), block.new_zeros(()), block, out=part)
        assert into is not None, "a pack has at least one block of rows"
        return into


class FeatureEncoder:
    """Returns features before quantization instead of codes, to measure how near two codes are.

    Args:
        packs: computes the features.
    """

    batches_ahead = 0

    def __init__(self, packs: PackedEncoder) -> None:
        self._packs = packs

    def start(self, *arrays: np.ndarray) -> Callable[[], Tensor]:
        """Compute the features of a pack, float32 [code frames, C]."""
        features = self._packs.features(*arrays)
        return lambda: features


def _in_precision(module: Module, dtype: Precision) -> Module:
    """Return `module`, or a copy whose ConvNeXt blocks compute their products in bfloat16."""
    if dtype != "bfloat16":
        return module
    module = copy.deepcopy(module)
    for block in module.modules():
        if isinstance(block, ConvNeXtBlock):
            block.expand.bfloat16()
            block.contract.bfloat16()
    return module
