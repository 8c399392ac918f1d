"""A kernel that shows if kernels can be compiled."""

from __future__ import annotations

import torch
import triton
import triton.language as tl


@triton.jit
def _double_kernel(numbers, count, BLOCK: tl.constexpr):
    places = tl.arange(0, BLOCK)
    mask = places < count
    tl.store(numbers + places, 2 * tl.load(numbers + places, mask=mask), mask=mask)


def compile_probe(device: torch.device) -> None:
    """Compile and run a kernel on `device`.

    Raises:
        RuntimeError: it computed wrong numbers.
    """
    with torch.cuda.device(device):
        numbers = torch.arange(8.0, device=device)
        _double_kernel[(1,)](numbers, 8, 8)
        if numbers.tolist() != [0.0, 2.0, 4.0, 6.0, 8.0, 10.0, 12.0, 14.0]:
            raise RuntimeError(f"a kernel computed {numbers.tolist()}")
