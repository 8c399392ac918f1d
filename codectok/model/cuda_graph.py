"""A computation of one fixed shape on a GPU, recorded once and replayed without Python in between."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

# Libraries choose their kernels and workspaces in the first runs, which must not be recorded.
WARM_UPS = 2


class PendingResult:
    """A tensor that a GPU is still computing."""

    def __init__(self, device_tensor: Tensor) -> None:
        # Queued behind the computation at once: asked for later, the copy would wait for whatever was queued since.
        self._tensor = torch.empty(device_tensor.shape, dtype=device_tensor.dtype, pin_memory=True)
        self._tensor.copy_(device_tensor, non_blocking=True)
        self._copied = torch.cuda.Event()
        self._copied.record()

    def wait(self) -> Tensor:
        """The tensor, on the CPU."""
        self._copied.synchronize()
        return self._tensor


class CudaGraph:
    """Records `function` of tensors on the current CUDA device.

    Args:
        function: maps tensors to one tensor, with the same kernels whatever the tensors hold.
        inputs: of the shapes with which it will be called.
    """

    def __init__(self, function: Callable[..., Tensor], inputs: Sequence[Tensor]) -> None:
        self._inputs = [tensor.cuda() for tensor in inputs]
        self._arrivals: torch.cuda.Stream = torch.cuda.Stream()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UPS):
                function(*self._inputs)
        torch.cuda.current_stream().wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        # Other threads may use the GPU meanwhile.
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self._output = function(*self._inputs)

    def __call__(self, inputs: Sequence[Tensor]) -> PendingResult:
        """Queue the computation for `inputs` on the CPU."""
        # They travel while the GPU still works on what came before, and wait for it in memory of their own.
        with torch.cuda.stream(self._arrivals):
            arrived = [tensor.pin_memory().to(own.device, non_blocking=True) for own, tensor in self._pairs(inputs)]
        work = torch.cuda.current_stream()
        work.wait_stream(self._arrivals)
        for own, tensor in self._pairs(arrived):
            own.copy_(tensor)
            tensor.record_stream(work)
        self._graph.replay()
        return PendingResult(self._output)

    def _pairs(self, inputs: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        return zip(self._inputs, inputs, strict=True)
