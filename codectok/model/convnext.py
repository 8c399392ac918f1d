"""ConvNeXt encoder over time (Liu et al. 2022, version 1 blocks), channels last throughout: [B, T, C].

Only the stem and the depthwise convolutions mix time; all other layers are frame-wise. The stem, the depthwise
convolutions and the blocks also work without padding (`valid`), so that a long sequence can be computed in blocks that
overlap by the receptive field.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codectok.config import EncoderConfig

LAYER_NORM_EPSILON = 1e-6
LAYER_SCALE_INIT = 1e-6


class DropPath(nn.Module):
    """Skips a residual branch for random samples in training (stochastic depth, Huang et al. 2016)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Zero samples of `x` [B, ...] with probability `rate` and scale up the others."""
        if not self.training or self.rate == 0:
            return x
        keep = 1 - self.rate
        mask = torch.empty(x.shape[0], *[1] * (x.dim() - 1), dtype=x.dtype, device=x.device).bernoulli_(keep)
        return x * mask / keep


class DepthwiseConv(nn.Module):
    """Depthwise convolution over time, [B, T, C] to [B, T, C]; zero padding in `forward`, none in `valid`."""

    def __init__(self, dim: int, kernel_size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(dim, 1, kernel_size))
        self.bias = nn.Parameter(torch.zeros(dim))
        nn.init.trunc_normal_(self.weight, std=0.02)

    @property
    def receptive_field(self) -> int:
        """Frames on each side that an output frame depends on."""
        return self.weight.shape[2] // 2

    def forward(self, x: Tensor) -> Tensor:
        """Convolve each channel of `x` [B, T, C] with its own kernel."""
        y = F.conv1d(x.transpose(1, 2), self.weight, self.bias, padding=self.receptive_field, groups=x.shape[2])
        return y.transpose(1, 2)

    def valid(self, x: Tensor) -> Tensor:
        """Convolve `x` [T + kernel_size - 1, C] to [T, C]."""
        if x.is_cuda:
            return F.conv1d(x.T.unsqueeze(0), self.weight, self.bias, groups=x.shape[1])[0].T.contiguous()
        # Tap by tap: faster than `conv1d`, which needs channels first, for blocks that fit into a processor's cache.
        taps = self.weight[:, 0].T.contiguous()
        frames = len(x) - len(taps) + 1
        y = torch.addcmul(self.bias, x[:frames], taps[0])
        for offset in range(1, len(taps)):
            y.addcmul_(x[offset : offset + frames], taps[offset])
        return y


class WindowedLinear(nn.Module):
    """Dense convolution over time with zero padding, computed as a matrix product of unfolded windows.

    The last bits of `conv1d` depend on the length of its input; rows of a matrix product do not.
    """

    def __init__(self, in_dim: int, out_dim: int, kernel_size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_dim, in_dim, kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_dim))
        nn.init.trunc_normal_(self.weight, std=0.02)

    @property
    def receptive_field(self) -> int:
        """Frames on each side that an output frame depends on."""
        return self.weight.shape[2] // 2

    def forward(self, x: Tensor) -> Tensor:
        """Convolve `x` [B, T, in_dim] to [B, T, out_dim]."""
        return self.valid(F.pad(x, (0, 0, self.receptive_field, self.receptive_field)))

    def valid(self, x: Tensor) -> Tensor:
        """Convolve `x` [..., T + kernel_size - 1, in_dim] to [..., T, out_dim]."""
        windows = x.unfold(-2, self.weight.shape[2], 1).flatten(-2)  # [..., T, in_dim * kernel_size], channel-major
        return F.linear(windows, self.weight.flatten(1), self.bias)


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution, layer norm and a two-layer perceptron on a scaled residual branch."""

    def __init__(
        self, dim: int, kernel_size: int, drop_path_rate: float = 0.0, scale: float = LAYER_SCALE_INIT
    ) -> None:
        super().__init__()
        self.depthwise = DepthwiseConv(dim, kernel_size)
        self.norm = nn.LayerNorm(dim, eps=LAYER_NORM_EPSILON)
        self.expand = truncated_normal_linear(dim, 4 * dim)
        self.contract = truncated_normal_linear(4 * dim, dim)
        self.gamma = nn.Parameter(torch.full((dim,), scale))
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor) -> Tensor:
        """Map `x` [B, T, C] to the same shape."""
        y: Tensor = x + self.drop_path(self.gamma * self._perceptron(self.depthwise(x)))
        return y

    def valid(self, x: Tensor) -> Tensor:
        """Map `x` [T + kernel_size - 1, C] to [T, C]."""
        side = self.depthwise.receptive_field
        return torch.addcmul(x[side : len(x) - side], self.gamma, self._perceptron(self.depthwise.valid(x)))

    def _perceptron(self, y: Tensor) -> Tensor:
        # The two products may have a lower precision than the rest.
        y = self.norm(y).to(self.expand.weight.dtype)
        y = self.contract(F.gelu(self.expand(y)))
        return y


class ConvNeXtEncoder(nn.Module):
    """Maps each log-mel frame to features: a stem, then stages of ConvNeXt blocks joined by frame-wise layers."""

    def __init__(self, config: EncoderConfig, n_mels: int) -> None:
        super().__init__()
        dims, depths = config.dims, config.depths
        self.stem = WindowedLinear(n_mels, dims[0], config.kernel_size)
        self.stem_norm = nn.LayerNorm(dims[0], eps=LAYER_NORM_EPSILON)
        rates = (config.drop_path_rate * block / max(1, sum(depths) - 1) for block in range(sum(depths)))
        self.stages = nn.ModuleList(
            nn.Sequential(*[ConvNeXtBlock(dim, config.kernel_size, next(rates)) for _ in range(depth)])
            for dim, depth in zip(dims, depths, strict=True)
        )
        self.transitions = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(dim, eps=LAYER_NORM_EPSILON), truncated_normal_linear(dim, next_dim))
            for dim, next_dim in itertools.pairwise(dims)
        )
        self.norm = nn.LayerNorm(dims[-1], eps=LAYER_NORM_EPSILON)

    def forward(self, log_mel: Tensor) -> Tensor:
        """Map `log_mel` [B, T, n_mels] to features [B, T, dims[-1]]."""
        x: Tensor = self.stages[0](self.stem_norm(self.stem(log_mel)))
        for transition, stage in zip(self.transitions, self.stages[1:], strict=True):
            x = stage(transition(x))
        x = self.norm(x)
        return x


def truncated_normal_linear(in_dim: int, out_dim: int) -> nn.Linear:
    """Create a linear layer with truncated normal weights (standard deviation 0.02) and zero bias."""
    linear = nn.Linear(in_dim, out_dim)
    nn.init.trunc_normal_(linear.weight, std=0.02)
    nn.init.zeros_(linear.bias)
    return linear
