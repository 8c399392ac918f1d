"""CUDA graphs: a computation of fixed shape, recorded once and replayed without Python overhead."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

# CUDA libraries choose kernels and allocate workspaces in the first runs, which must not be recorded.
WARM_UPS = 2


class GPUClock:
    """Seconds in which the GPUs of this process computed batches, by their own clocks."""

    seconds = 0.0
    lock = threading.Lock()


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
            with GPUClock.lock:
                GPUClock.seconds += self._started.elapsed_time(self._copied) / 1000
            self._started = None
        return self._tensor


# Calls whose inputs may be on their way to the GPU at a time.
STAGES = 3


class _Stage:
    """Memory through which the inputs of one call pass: pinned on the CPU, since only such copies run beside others.

    Args:
        inputs: tensors on the GPU of the shapes of the inputs.
        copies: stream of the copies.
    """

    def __init__(self, inputs: Sequence[Tensor], copies: torch.cuda.Stream) -> None:
        self._pinned = [torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True) for tensor in inputs]
        self._arrived = [torch.empty_like(tensor) for tensor in inputs]
        self._copies = copies
        self._sent, self._used = (torch.cuda.Event() for _ in range(2))  # type: ignore[no-untyped-call]

    def send(self, inputs: Sequence[Tensor]) -> None:
        """Start copies of `inputs` on the CPU to the GPU."""
        self._sent.synchronize()
        for pinned, tensor in zip(self._pinned, inputs, strict=True):
            pinned.copy_(tensor)
        with torch.cuda.stream(self._copies):
            self._copies.wait_event(self._used)
            for arrived, pinned in zip(self._arrived, self._pinned, strict=True):
                arrived.copy_(pinned, non_blocking=True)
            self._sent.record(self._copies)

    def receive(self, into: Sequence[Tensor]) -> None:
        """Copy what was sent to `into` on the GPU, in the current stream."""
        work = torch.cuda.current_stream()
        work.wait_event(self._sent)
        for own, arrived in zip(into, self._arrived, strict=True):
            own.copy_(arrived)
        self._used.record(work)


class CudaGraph:
    """Records a function of tensors on the current CUDA device.

    Args:
        function: maps tensors to one tensor; its kernels must not depend on the values.
        inputs: tensors of the shapes that later calls have.
    """

    def __init__(self, function: Callable[..., Tensor], inputs: Sequence[Tensor]) -> None:
        self._inputs = [tensor.cuda() for tensor in inputs]
        copies: torch.cuda.Stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._lock = threading.Lock()
        # Calls take turns; each copies while the GPU still computes the one before.
        self._stages = itertools.cycle([_Stage(self._inputs, copies) for _ in range(STAGES)])
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
        """Queue the computation for `inputs` on the CPU; several threads may call it."""
        with self._lock:
            return self._queue(inputs)

    def _queue(self, inputs: Sequence[Tensor]) -> PendingResult:
        stage = next(self._stages)
        stage.send(inputs)
        stage.receive(self._inputs)
        started = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        started.record()
        self._graph.replay()
        return PendingResult(self._output, started)
