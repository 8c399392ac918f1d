"""Decoding in windows: memory does not grow with a clip's length.

Every convolution of the decoder pads with zeros at the clip's ends, which a padded batch would not reproduce. So a
clip is decoded in windows that overlap by the decoder's reach; the first starts and the last ends where the clip
does, and of the others only the samples that see their whole neighbourhood are kept. On a GPU windows of equal length
are decoded together, of whatever clips they are.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from codectok.config import CodecConfig
from codectok.device import Precision, inference
from codectok.model.quantization.temporal import BLOCK_KERNEL_SIZE

from .network import CodecNetwork

# Frames of codes in a window beside its context: a compromise between work done twice and what a cache holds.
WINDOW_FRAMES = 384
GPU_BATCH = 16


def decoder_context(config: CodecConfig) -> int:
    """Frames of codes on each side of a frame that its samples depend on."""
    decoder = config.decoder
    blocks = zip(decoder.resblock_kernel_sizes, decoder.resblock_dilations, strict=True)
    block_reach = max(sum(size // 2 * (dilation + 1) for dilation in dilations) for size, dilations in blocks)
    reach = decoder.post_kernel_size // 2
    for rate, kernel_size in zip(decoder.upsample_rates[::-1], decoder.upsample_kernel_sizes[::-1], strict=True):
        reach += block_reach
        padding = (kernel_size - rate) // 2
        reach = max(reach + kernel_size - 1 - padding, reach + rate - 1 + padding) // rate
    reach += decoder.pre_kernel_size // 2
    for factor in config.quantizer.time_factors:
        reach = math.ceil((reach + BLOCK_KERNEL_SIZE // 2) / factor)
    return reach


@dataclass(frozen=True)
class Window:
    """Frames `start` to `stop` of a clip, of which those from `keep_start` to `keep_stop` are kept."""

    start: int
    stop: int
    keep_start: int
    keep_stop: int


def windows(n_frames: int, size: int, context: int, equal: bool) -> list[Window]:
    """Windows of `size` frames that keep every frame of a clip once; a single one of a shorter clip's length.

    With `equal` the last window has that size too, and overlaps more with the one before it.
    """
    if n_frames <= size:
        return [Window(0, n_frames, 0, n_frames)]
    found: list[Window] = []
    done = 0
    while done < n_frames:
        start = max(0, done - context)
        if equal:
            start = min(start, n_frames - size)
        stop = min(start + size, n_frames)
        keep_stop = n_frames if stop == n_frames else stop - context
        found.append(Window(start, stop, done, keep_stop))
        done = keep_stop
    return found


class WindowedDecoder:
    """Decodes codes to samples window by window.

    Args:
        network: in inference mode, on `device`.
        device: on which to work.
        dtype: in "bfloat16" the decoder's convolutions are.
    """

    def __init__(self, network: CodecNetwork, device: torch.device, dtype: Precision) -> None:
        self._network = network
        self._device = device
        self._dtype = dtype
        self._context = decoder_context(network.config)
        self._size = WINDOW_FRAMES + 2 * self._context
        self._batch = GPU_BATCH if device.type == "cuda" else 1

    def stream(self, codes: Tensor) -> Iterator[Tensor]:
        """Samples float32 [n] on the CPU of `codes` [n_frames, n_codebooks], window by window."""
        parts = self._windows(codes)
        for first in range(0, len(parts), self._batch):
            yield from self._decode([(codes, window) for window in parts[first : first + self._batch]])

    def batch(self, clips: Sequence[Tensor]) -> list[Tensor]:
        """Samples float32 [n] on the CPU of each clip's codes [n_frames, n_codebooks]."""
        by_length: defaultdict[int, list[tuple[int, Window]]] = defaultdict(list)
        for clip, codes in enumerate(clips):
            for window in self._windows(codes):
                by_length[window.stop - window.start].append((clip, window))
        waveforms = [torch.empty(len(codes) * self._network.config.frame_size) for codes in clips]
        for group in by_length.values():
            for first in range(0, len(group), self._batch):
                part = group[first : first + self._batch]
                decoded = self._decode([(clips[clip], window) for clip, window in part])
                for (clip, window), samples in zip(part, decoded, strict=True):
                    start = window.keep_start * self._network.config.frame_size
                    waveforms[clip][start : start + len(samples)] = samples
        return waveforms

    def _windows(self, codes: Tensor) -> list[Window]:
        return windows(len(codes), self._size, self._context, equal=self._batch > 1)

    def _decode(self, parts: Sequence[tuple[Tensor, Window]]) -> list[Tensor]:
        frame_size = self._network.config.frame_size
        stacked = torch.stack([codes[window.start : window.stop] for codes, window in parts])
        with inference(self._device, tf32=self._dtype == "tf32", autocast=self._dtype == "bfloat16"):
            samples = self._network.decode(stacked.to(self._device)).float().cpu()
        return [
            row[(window.keep_start - window.start) * frame_size : (window.keep_stop - window.start) * frame_size]
            for row, (_, window) in zip(samples, parts, strict=True)
        ]
