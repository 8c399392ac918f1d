"""Recognizes out-of-memory errors, which torch and the libraries below it report in different ways."""

from __future__ import annotations

import torch

GPU_ALLOCATION_FAILURES = ("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
_ALLOCATION_FAILURES = ("out of memory", "ALLOC_FAILED", "DefaultCPUAllocator")


def is_gpu_out_of_memory(error: Exception) -> bool:
    """True if `error` says that a GPU is out of memory."""
    return isinstance(error, torch.OutOfMemoryError) or _mentions(error, GPU_ALLOCATION_FAILURES)


def is_out_of_memory(error: Exception) -> bool:
    """True if `error` says that a GPU or this machine is out of memory."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or _mentions(error, _ALLOCATION_FAILURES)


def _mentions(error: Exception, failures: tuple[str, ...]) -> bool:
    return isinstance(error, RuntimeError) and any(failure in str(error) for failure in failures)
