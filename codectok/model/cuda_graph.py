"""CUDA graphs: a computation of fixed shape, recorded once and replayed without Python overhead."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

# CUDA libraries choose kernels and allocate workspaces in the first runs, which must not be recorded.
WARM_UPS = 2


class GPUClock:
    """Seconds in which the GPUs of this process computed batches, by their own clocks."""

    seconds = 0.0


class PendingResult:
    """A tensor that a GPU is still computing since the event `started`."""

    def __init__(self, device_tensor: Tensor, started: torch.cuda.Event) -> None:
        self._started: torch.cuda.Event | None = started
        # Queue the copy right behind the computation; queued in `wait`, it would follow all work started since.
        self._tensor = torch.empty(device_tensor.shape, dtype=device_tensor.dtype, pin_memory=True)
        self._tensor.copy_(device_tensor, non_blocking=True)
        self._copied = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        self._copied.record()

    def wait(self) -> Tensor:
        """Wait for the tensor and return it on the CPU."""
        self._copied.synchronize()
        if self._started is not None:
            GPUClock.seconds += self._started.elapsed_time(self._copied) / 1000
            self._started = None
        return self._tensor


class CudaGraph:
    """Records a function of tensors on the current CUDA device.

    Args:
        function: maps tensors to one tensor; its kernels must not depend on the values.
        inputs: tensors of the shapes that later calls have.
    """

    def __init__(self, function: Callable[..., Tensor], inputs: Sequence[Tensor]) -> None:
        self._inputs = [tensor.cuda() for tensor in inputs]
        self._copies: torch.cuda.Stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UPS):
                function(*self._inputs)
        torch.cuda.current_stream().wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        # Other threads may use the GPU during capture.
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self._output = function(*self._inputs)

    def __call__(self, inputs: Sequence[Tensor]) -> PendingResult:
        """Queue the computation for `inputs` on the CPU."""
        # Copy to separate buffers on another stream, while the GPU still computes the previous call.
        with torch.cuda.stream(self._copies):
            arrived = [tensor.pin_memory().to(own.device, non_blocking=True) for own, tensor in self._pairs(inputs)]
        work = torch.cuda.current_stream()
        work.wait_stream(self._copies)
        for own, tensor in self._pairs(arrived):
            own.copy_(tensor)
            tensor.record_stream(work)
        started = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        started.record()
        self._graph.replay()
        return PendingResult(self._output, started)

    def _pairs(self, inputs: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        return zip(self._inputs, inputs, strict=True)
