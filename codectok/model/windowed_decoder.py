"""Decodes in windows, so that memory does not grow with a clip's length.

Every convolution of the decoder pads with zeros at the clip's ends, which a padded batch would not reproduce. So a
clip is decoded in windows that overlap by the decoder's receptive field. The first window starts and the last one ends
with the clip; samples whose receptive field a window cuts off are dropped. On a GPU windows of equal length are decoded
together, also windows of different clips.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from codectok.choices import Precision
from codectok.config import CodecConfig
from codectok.device import inference
from codectok.model.quantization.temporal import BLOCK_KERNEL_SIZE

from .network import CodecNetwork, mel_receptive_field

# Code frames in a window beside its overlap: a compromise between repeated work and cache size.
WINDOW_FRAMES = 384
GPU_BATCH = 16


def decoder_receptive_field(config: CodecConfig) -> int:
    """Number of code frames on each side of a frame that its samples depend on."""
    side = mel_receptive_field(config)
    for factor in config.quantizer.time_factors:
        side = math.ceil((side + BLOCK_KERNEL_SIZE // 2) / factor)
    return side


@dataclass(frozen=True)
class Window:
    """Frames `start` to `stop` of a clip; the samples of frames `keep_start` to `keep_stop` are kept."""

    start: int
    stop: int
    keep_start: int
    keep_stop: int


def windows(n_frames: int, size: int, receptive_field: int, equal: bool) -> list[Window]:
    """Return windows of `size` frames that keep every frame of a clip once; a shorter clip has a single window.

    Args:
        n_frames: length of the clip in code frames.
        size: length of a window in code frames.
        receptive_field: code frames on each side that a kept frame needs.
        equal: give the last window the same size, with a larger overlap.
    """
    if n_frames <= size:
        return [Window(0, n_frames, 0, n_frames)]
    found: list[Window] = []
    done = 0
    while done < n_frames:
        start = max(0, done - receptive_field)
        if equal:
            start = min(start, n_frames - size)
        stop = min(start + size, n_frames)
        keep_stop = n_frames if stop == n_frames else stop - receptive_field
        found.append(Window(start, stop, done, keep_stop))
        done = keep_stop
    return found


class WindowedDecoder:
    """Decodes codes to samples window by window.

    Args:
        network: network in inference mode, on `device`.
        device: device that computes.
        dtype: "bfloat16" computes the decoder's convolutions in bfloat16, "tf32" in TF32.
    """

    def __init__(self, network: CodecNetwork, device: torch.device, dtype: Precision) -> None:
        self._network = network
        self._device = device
        self._dtype = dtype
        self._receptive_field = decoder_receptive_field(network.config)
        self._size = WINDOW_FRAMES + 2 * self._receptive_field
        self._batch = GPU_BATCH if device.type == "cuda" else 1

    def stream(self, codes: Tensor) -> Iterator[Tensor]:
        """Decode `codes` [n_frames, n_codebooks] window by window to blocks float32 [n] on the CPU."""
        found = self._windows(codes)
        for first in range(0, len(found), self._batch):
            yield from self._decode([(codes, window) for window in found[first : first + self._batch]])

    def batch(self, clips: Sequence[Tensor]) -> list[Tensor]:
        """Decode the codes [n_frames, n_codebooks] of each clip to float32 [n] on the CPU."""
        by_length: defaultdict[int, list[tuple[int, Window]]] = defaultdict(list)
        for clip, codes in enumerate(clips):
            for window in self._windows(codes):
                by_length[window.stop - window.start].append((clip, window))
        waveforms = [torch.empty(len(codes) * self._network.config.frame_size) for codes in clips]
        for group in by_length.values():
            for first in range(0, len(group), self._batch):
                batch = group[first : first + self._batch]
                decoded = self._decode([(clips[clip], window) for clip, window in batch])
                for (clip, window), samples in zip(batch, decoded, strict=True):
                    start = window.keep_start * self._network.config.frame_size
                    waveforms[clip][start : start + len(samples)] = samples
        return waveforms

    def _windows(self, codes: Tensor) -> list[Window]:
        return windows(len(codes), self._size, self._receptive_field, equal=self._batch > 1)

    def _decode(self, clip_windows: Sequence[tuple[Tensor, Window]]) -> list[Tensor]:
        frame_size = self._network.config.frame_size
        stacked = torch.stack([codes[window.start : window.stop] for codes, window in clip_windows])
        with inference(self._device, tf32=self._dtype == "tf32", autocast=self._dtype == "bfloat16"):
            samples = self._network.decode(stacked.to(self._device)).float().cpu()
        return [
            row[(window.keep_start - window.start) * frame_size : (window.keep_stop - window.start) * frame_size]
            for row, (_, window) in zip(samples, clip_windows, strict=True)
        ]
