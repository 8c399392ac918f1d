"""Runs a HiFi-GAN decoder on packed frames on a GPU, see `codectok.model.kernels.convolution`."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from codectok.model.kernels.convolution import CHANNEL_UNIT, Convolution, Epilogue, LastConvolution, Rows

from .hifigan import HiFiGANDecoder, ResidualBlock

HALF = torch.bfloat16


def supports(decoder: nn.Module) -> bool:
    """True if kernels can run `decoder`: a HiFi-GAN whose channels are multiples of 16."""
    if not isinstance(decoder, HiFiGANDecoder):
        return False
    layers = [module for module in decoder.modules() if isinstance(module, nn.Conv1d | nn.ConvTranspose1d)]
    channels = {size for layer in layers for size in (layer.in_channels, layer.out_channels)} - {1}
    return all(size % CHANNEL_UNIT == 0 for size in channels)


class FusedHiFiGAN:
    """Maps features of packed clips to samples.

    Args:
        decoder: decoder in inference mode, on a GPU; later changes of its weights are not seen.

    Attributes:
        reach: frames on each side of a frame that one convolution mixes with it.
    """

    def __init__(self, decoder: HiFiGANDecoder) -> None:
        self._pre = Convolution.of(decoder.pre)
        self._stages = [
            _Stage(cast("nn.ConvTranspose1d", upsample), cast("nn.ModuleList", blocks))
            for upsample, blocks in zip(decoder.upsamples, decoder.blocks, strict=True)
        ]
        self._post = LastConvolution(decoder.post)
        self._device = decoder.pre.weight.device
        stages = max(stage.reach for stage in self._stages)
        self._margin = max(self._pre.reach, stages, decoder.post.kernel_size[0] // 2)
        # A stage has at least the first one's rows a frame; the first transposed convolution works on frames.
        first = self._stages[0]
        self.reach = max(self._pre.reach, first.upsample.reach, -(-self._margin // first.rate))

    def __call__(self, features: Tensor, gap: Tensor) -> Tensor:
        """Map `features` [n, C], zero where `gap` [n], to a waveform float32 [n * product of the upsampling rates]."""
        x = self._new(len(features), features.shape[1], HALF)
        x.inner.copy_(features)
        activated = self._new(len(features), self._pre.out_channels, HALF)
        self._pre(x, gap, Epilogue(activated=activated.inner))
        for number, stage in enumerate(self._stages):
            # Rounding to bfloat16 48 dB below the signal would show in the log-mel of quiet passages.
            dtype = HALF if number + 1 < len(self._stages) else torch.float32
            activated = stage(activated, gap, self._new, dtype)
        return self._post(activated)

    def _new(self, n_rows: int, n_channels: int, dtype: torch.dtype) -> Rows:
        return Rows.new(n_rows, n_channels, self._margin, self._device, dtype)


NewRows = Callable[[int, int, torch.dtype], Rows]


class _Stage:
    """A transposed convolution, and the mean of parallel residual blocks."""

    def __init__(self, upsample: nn.ConvTranspose1d, blocks: nn.ModuleList) -> None:
        self.upsample = Convolution.of_transposed(upsample)
        self.rate, self._channels = upsample.stride[0], upsample.out_channels
        self._blocks = [
            [
                (Convolution.of(cast("nn.Conv1d", dilated)), Convolution.of(cast("nn.Conv1d", plain)))
                for dilated, plain in zip(block.dilated, block.plain, strict=True)
            ]
            for block in cast("list[ResidualBlock]", list(blocks))
        ]
        convolutions = [self.upsample, *(each for block in self._blocks for pair in block for each in pair)]
        self.reach = max(each.reach for each in convolutions)

    def __call__(self, rows: Rows, gap: Tensor, new: NewRows, dtype: torch.dtype) -> Rows:
        """Map activated rows to the activated rows of the next stage, of type `dtype`."""
        n_in, n_rows = len(rows.inner), len(rows.inner) * self.rate
        first, first_activated = (new(n_rows, self._channels, HALF) for _ in range(2))
        # A row of the product holds the successive output rows of one input row.
        wide = (n_in, self.rate * self._channels)
        epilogue = Epilogue(result=first.inner.view(wide), activated=first_activated.inner.view(wide))
        self.upsample(rows, gap, epilogue)
        between, x_activated = (new(n_rows, self._channels, HALF) for _ in range(2))
        x, total = (new(n_rows, self._channels, HALF).inner for _ in range(2))
        output = new(n_rows, self._channels, dtype)
        for number, block in enumerate(self._blocks):
            last_block = number + 1 == len(self._blocks)
            for step, (dilated, plain) in enumerate(block):
                dilated(first_activated if step == 0 else x_activated, gap, Epilogue(activated=between.inner))
                residual = first.inner if step == 0 else x
                if step + 1 < len(block):
                    plain(between, gap, Epilogue(residual=residual, result=x, activated=x_activated.inner))
                    continue
                plain(
                    between,
                    gap,
                    Epilogue(
                        residual=residual,
                        total=total if number else None,
                        total_result=None if last_block else total,
                        activated=output.inner if last_block else None,
                        scale=1 / len(self._blocks),
                    ),
                )
        return output
