"""A computation of one fixed shape on a GPU, recorded once and replayed without Python in between."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

# Libraries choose their kernels and workspaces in the first runs, which must not be recorded.
WARM_UPS = 2


class CudaGraph:
    """Records `function` of tensors on the current CUDA device.

    Args:
        function: maps tensors to one tensor, with the same kernels whatever the tensors hold.
        inputs: of the shapes with which it will be called.
    """

    def __init__(self, function: Callable[..., Tensor], inputs: Sequence[Tensor]) -> None:
        self._inputs = [tensor.clone() for tensor in inputs]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UPS):
                function(*self._inputs)
        torch.cuda.current_stream().wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._output = function(*self._inputs)

    def __call__(self, inputs: Sequence[Tensor]) -> Tensor:
        """The result for `inputs`, queued on the current stream."""
        for own, tensor in zip(self._inputs, inputs, strict=True):
            own.copy_(tensor, non_blocking=True)
        self._graph.replay()
        return self._output.clone()
