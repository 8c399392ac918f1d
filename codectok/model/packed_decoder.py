"""Decodes packs of clips on a GPU: every pack has one shape, whatever the lengths of its clips.

Codes of clips lie end to end, with gaps that no convolution can bridge, and frames in gaps are set to zero before every
operation that mixes time, as in `codectok.model.packing`. A clip's samples do not depend on other clips. A clip longer
than a pack is cut into windows that overlap by the decoder's receptive field.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from codectok.device import current_device, inference
from codectok.errors import CodectokError
from codectok.model.kernels.frames import FusedBlock, with_margin
from codectok.model.quantization.temporal import BLOCK_KERNEL_SIZE, Upsample

from .cuda_graph import CudaGraph, PendingResult
from .hifigan import HiFiGANDecoder
from .hifigan_kernels import FusedHiFiGAN
from .network import CodecNetwork
from .plain_features import in_precision
from .windowed_decoder import Window, WindowedDecoder, decoder_receptive_field, windows

# Mel frames of a pack: 44 s, which fill a large GPU; a single short clip costs as much.
PACK_FRAMES = 4096
# How much more than torch's samples in bfloat16 those of kernels may differ from float32; tests measure less than 3.
MAX_KERNEL_DIFFERENCE = 5.0


@dataclass(frozen=True)
class _Placed:
    """A window of clip number `clip` at frame `position` of a pack."""

    clip: int
    window: Window
    position: int


class PackedDecoder:
    """Decodes codes to samples, with products in bfloat16.

    Args:
        network: network in inference mode, on `device`, with a decoder that `hifigan_kernels.supports`.
        device: device that computes; the interpreter of kernels runs on a CPU.
        pack_frames: mel frames of a pack, rounded up to a possible number.
    """

    def __init__(self, network: CodecNetwork, device: torch.device, pack_frames: int = PACK_FRAMES) -> None:
        self._network, self._device = network, device
        self._frame_size = network.config.frame_size
        self._n_codebooks = network.config.quantizer.n_codebooks
        self._receptive_field = decoder_receptive_field(network.config)
        self._inner = network.quantizer.inner
        upsamples = cast("Iterable[Upsample]", in_precision(network.quantizer.upsample, "bfloat16"))
        self._upsamples = [(layer.weight.bfloat16(), layer.bias, FusedBlock(layer.block)) for layer in upsamples]
        self._decoder = FusedHiFiGAN(cast("HiFiGANDecoder", network.decoder))
        # One code frame is at least one frame of every later level, so that this gap is wide enough at all levels.
        self._gap: int = max(BLOCK_KERNEL_SIZE // 2, self._decoder.reach)
        mel_frames = self._frame_size // network.config.mel.hop_length
        self._size = -(-max(pack_frames, 4 * self._receptive_field * mel_frames) // mel_frames)
        self._lock = threading.Lock()
        self._is_checked = False
        self._graph: CudaGraph | None = None

    def stream(self, codes: Tensor) -> Iterator[Tensor]:
        """Decode `codes` [n_frames, n_codebooks] to blocks float32 [n] on the CPU."""
        for _, _, samples in self._decode([codes]):
            yield samples.clone()  # a view would keep the pinned memory of a whole pack

    def batch(self, clips: Sequence[Tensor]) -> list[Tensor]:
        """Decode the codes [n_frames, n_codebooks] of each clip to float32 [n] on the CPU."""
        waveforms = [torch.empty(len(codes) * self._frame_size) for codes in clips]
        for clip, start, samples in self._decode(clips):
            waveforms[clip][start : start + len(samples)] = samples
        return waveforms

    def _decode(self, clips: Sequence[Tensor]) -> Iterator[tuple[int, int, Tensor]]:
        """Return the number of a clip, the first sample, and the samples of each of its windows."""
        with self._lock:
            if not self._is_checked:
                self._check_kernels()
                self._is_checked = True
        running: deque[tuple[list[_Placed], PendingResult | Tensor]] = deque()
        for pack in self._packs(clips):
            running.append((pack, self._start(pack, clips)))
            if len(running) > 1:
                yield from self._samples(*running.popleft())
        while running:
            yield from self._samples(*running.popleft())

    def _packs(self, clips: Sequence[Tensor]) -> Iterator[list[_Placed]]:
        pack: list[_Placed] = []
        end = 0
        for clip, codes in enumerate(clips):
            for window in windows(len(codes), self._size, self._receptive_field, equal=False):
                length = window.stop - window.start
                if end + length > self._size:
                    yield pack
                    pack, end = [], 0
                pack.append(_Placed(clip, window, end))
                end += length + self._gap
        if pack:
            yield pack

    def _inputs(self, pack: Sequence[_Placed], clips: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the codes int64 [n_frames, n_codebooks] and the gaps bool [n_frames] of a pack."""
        codes = torch.zeros(self._size, self._n_codebooks, dtype=torch.int64)
        gap = torch.ones(self._size, dtype=torch.bool)
        for placed in pack:
            window = placed.window
            place = slice(placed.position, placed.position + window.stop - window.start)
            codes[place] = clips[placed.clip][window.start : window.stop]
            gap[place] = False
        return codes, gap

    def _start(self, pack: Sequence[_Placed], clips: Sequence[Tensor]) -> PendingResult | Tensor:
        inputs = self._inputs(pack, clips)
        with inference(self._device, tf32=False, autocast=False), current_device(self._device):
            if self._device.type != "cuda":
                return self._waveform(*inputs)
            with self._lock:
                if self._graph is None:
                    self._graph = CudaGraph(self._waveform, inputs)
            return self._graph(inputs)

    def _check_kernels(self) -> None:
        """Check that kernels decode codes like torch, since a compiler may be wrong for a new GPU.

        Raises:
            CodectokError: they differ by more than by rounding.
        """
        generator = torch.Generator().manual_seed(0)
        shape = ((self._size - self._gap) // 2, self._n_codebooks)
        n_codes = self._network.config.quantizer.codebook_size
        clips = [torch.randint(n_codes, shape, generator=generator) for _ in range(2)]
        (pack,) = self._packs(clips)
        with inference(self._device, tf32=False, autocast=False), current_device(self._device):
            result = self._waveform(*(each.to(self._device) for each in self._inputs(pack, clips))).cpu()
        found = torch.cat([samples for _, _, samples in self._samples(pack, result)])
        exact, rounded = (
            torch.cat(WindowedDecoder(self._network, self._device, dtype).batch(clips))
            for dtype in ("float32", "bfloat16")
        )
        difference, rounding = (float((each - exact).norm() / exact.norm()) for each in (found, rounded))
        if not difference < MAX_KERNEL_DIFFERENCE * rounding:
            raise CodectokError(
                f"Kernels of Triton decode samples that differ by {difference:.1%} from torch's on this GPU, where"
                f" bfloat16 makes {rounding:.1%}; use torch's (--kernels torch) or --dtype float32, and report it."
            )

    def _samples(self, pack: Sequence[_Placed], result: PendingResult | Tensor) -> Iterator[tuple[int, int, Tensor]]:
        samples = result if isinstance(result, Tensor) else result.wait()
        for placed in pack:
            window = placed.window
            first = placed.position + window.keep_start - window.start
            last = placed.position + window.keep_stop - window.start
            kept = samples[first * self._frame_size : last * self._frame_size]
            yield placed.clip, window.keep_start * self._frame_size, kept

    def _waveform(self, codes: Tensor, gap: Tensor) -> Tensor:
        """Decode `codes` [n_frames, n_codebooks] with `gap` bool [n_frames] to samples float32 [n]."""
        features = self._inner.decode(codes.unsqueeze(0))[0].masked_fill(gap.unsqueeze(1), 0.0)
        margin = BLOCK_KERNEL_SIZE // 2
        for weight, bias, block in self._upsamples:
            n_channels = features.shape[1]
            wide = F.linear(features.bfloat16(), weight)
            gap = gap.repeat_interleave(wide.shape[1] // n_channels)
            x = with_margin(len(gap), n_channels, margin, features)
            x[margin:-margin] = (wide.view(len(gap), n_channels) + bias).masked_fill(gap.unsqueeze(1), 0.0)
            block(x, gap, margin)
            features = x[margin:-margin]
        return self._decoder(features, gap)
