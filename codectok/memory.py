"""Recognizes and explains out-of-memory errors, which torch and the libraries below it report in different ways."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from .errors import CodectokError

GPU_ALLOCATION_FAILURES = ("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
_ALLOCATION_FAILURES = ("out of memory", "ALLOC_FAILED", "DefaultCPUAllocator")


def is_gpu_out_of_memory(error: Exception) -> bool:
    """True if `error` says that a GPU is out of memory."""
    return isinstance(error, torch.OutOfMemoryError) or _mentions(error, GPU_ALLOCATION_FAILURES)


def is_out_of_memory(error: Exception) -> bool:
    """True if `error` says that a GPU or this machine is out of memory."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or _mentions(error, _ALLOCATION_FAILURES)


class GPUMemoryError(CodectokError):
    """A GPU has too little memory."""


@contextmanager
def gpu_memory_errors(subject: str, advice: str) -> Iterator[None]:
    """Replace out-of-memory errors of a GPU by a `GPUMemoryError` that names the `subject` and ends with `advice`.

    Nothing is tried again with smaller batches: codes can depend on their size, so that the user has to choose it.
    """
    try:
        yield
    except (torch.OutOfMemoryError, RuntimeError) as error:
        if not is_gpu_out_of_memory(error):
            raise
        raise GPUMemoryError(
            f"The GPU has too little memory for {subject}; {advice}, or free the GPU of other processes."
        ) from None


def _mentions(error: Exception, failures: tuple[str, ...]) -> bool:
    return isinstance(error, RuntimeError) and any(failure in str(error) for failure in failures)
