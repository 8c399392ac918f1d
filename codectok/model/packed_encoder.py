"""Encodes packs from samples to codes; a clip's codes do not depend on the rest of the pack."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from codectok.choices import Precision
from codectok.device import current_device, float32_products, inference
from codectok.errors import CodectokError
from codectok.model.quantization.search import SearchMethod

from .cuda_graph import CudaGraph
from .network import CodecNetwork
from .packing import BLOCK_ROWS, PackGeometry, cut_into_chunks, fill_packs
from .plain_features import Layer, PackFeatures, PlainFeatures

# Relative difference of features in bfloat16 by two orders of the same operations; measured are 0.2 % to 1 %.
MAX_KERNEL_DIFFERENCE = 0.05
# The search finds all codes but near ties.
MIN_EQUAL_CODES = 0.95


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
            With `fused`, each product outside the blocks is the sum of three in bfloat16, and codes are searched in
            float16 first.
        fused: compute with kernels for GPUs, for dtype "bfloat16"; see `codectok.model.kernels.support`.
    """

    def __init__(
        self,
        network: CodecNetwork,
        log_mel: Layer,
        geometry: PackGeometry,
        device: torch.device,
        dtype: Precision,
        fused: bool = False,
    ) -> None:
        self.geometry = geometry
        self.device = device
        self.dtype = dtype
        self._network, self._log_mel, self._fused = network, log_mel, fused
        self._on_gpu = device.type == "cuda"
        self._block_rows = geometry.pack_frames if self._on_gpu else BLOCK_ROWS
        self._pack_features: PackFeatures
        method: SearchMethod = "reduced" if self._on_gpu and dtype != "float32" else "exact"
        with inference(device, tf32=False, autocast=False), current_device(device):
            if fused:
                from .fused_features import FusedFeatures

                method = "fused"
                self._pack_features = FusedFeatures(network, log_mel, geometry)
            else:
                self._pack_features = self._plain_features()
            self._encode_frames = network.quantizer.frame_encoder(method)
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
        with inference(self.device, tf32=self.dtype == "tf32", autocast=False), current_device(self.device):
            self._check_positions()
            if not self._on_gpu:
                codes = self._codes(*inputs)
                return lambda: codes
            if self._graph is None:
                self._graph = CudaGraph(self._codes, inputs)
            return self._graph(inputs).wait

    def features(self, *arrays: np.ndarray) -> Tensor:
        """Return the features of a pack before quantization, float32 [code frames, C] on the CPU."""
        with inference(self.device, tf32=self.dtype == "tf32", autocast=False), current_device(self.device):
            return self._pack_features(*(torch.from_numpy(array).to(self.device) for array in arrays)).cpu()

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
        inputs = [torch.from_numpy(array).to(self.device) for array in (pack.samples, *pack.gaps)]
        features = self._pack_features(*inputs)
        if self._fused:
            self._check_kernels(inputs, features)
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

    def _plain_features(self) -> PlainFeatures:
        return PlainFeatures(self._network, self._log_mel, self.geometry, self.dtype, self._block_rows)

    def _check_kernels(self, inputs: Sequence[Tensor], features: Tensor) -> None:
        """Check that kernels compute features and codes like torch, since a compiler may be wrong for a new GPU.

        Raises:
            CodectokError: they differ by more than by rounding.
        """
        expected = self._plain_features()(*inputs)
        difference = float((features - expected).norm() / expected.norm())
        kept = features[~inputs[-1]]
        with float32_products():
            exact = self._network.quantizer.frame_encoder("exact")(kept)
            equal = float((self._encode_frames(kept) == exact).float().mean())
        if not (difference < MAX_KERNEL_DIFFERENCE and equal > MIN_EQUAL_CODES):
            raise CodectokError(
                f"Kernels of Triton compute features that differ by {difference:.1%} from torch's on this GPU, and"
                f" find {equal:.1%} of the codes; use torch's (--kernels torch) or --dtype float32, and report it."
            )

    def _codes(self, samples: Tensor, *gaps: Tensor) -> Tensor:
        """Encode `samples` [n] with `gaps` bool [frames] for each level to [code frames, n_codebooks]."""
        return self._encode_rows(self._pack_features(samples, *gaps))

    def _encode_rows(self, features: Tensor) -> Tensor:
        rows = min(self._block_rows, len(features))
        with float32_products():
            return torch.cat(
                [self._encode_frames(features[start : start + rows]) for start in range(0, len(features), rows)]
            )


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
