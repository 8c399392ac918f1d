"""Allocator settings, and readable out-of-memory errors."""

from __future__ import annotations

import ctypes
import gc
import re
import resource
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import torch

from codectok.errors import InputError
from codectok.memory import is_out_of_memory

from .config import TrainConfig

# Parameters of glibc's `mallopt`, from malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4
_NEVER = -1

_PEAK = re.compile(r"^VmHWM:\s*(\d+) kB", re.MULTILINE)


def keep_freed_memory(device: torch.device) -> None:
    """Keep freed memory in this process instead of returning it to the system, if training on a CPU with glibc.

    Every step on a CPU allocates and frees the same large blocks. By default glibc returns them to the system, which
    has to clear all their pages again.
    """
    if device.type != "cpu" or sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, _NEVER)


def reset_peak_memory(device: torch.device) -> None:
    """Return freed memory to the system, and measure `peak_memory` again.

    On macOS, or with a read-only /proc, the peak of a CPU counts from the start of the process.
    """
    gc.collect()
    if device.type == "cuda":
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
    elif sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")


def peak_memory(device: torch.device) -> int:
    """Return the largest memory in bytes since `reset_peak_memory`, of the GPU `device` or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "linux" and (found := _PEAK.search(Path("/proc/self/status").read_text())):
        return 1024 * int(found[1])
    # Kilobytes, but bytes on macOS.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@contextmanager
def _memory_errors(subject: str, advice: str) -> Iterator[None]:
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise InputError(f"{subject} does not fit into memory; {advice}.") from None


def network_memory_errors() -> AbstractContextManager[None]:
    """Raise an `InputError` with advice if memory runs out while the networks are built."""
    return _memory_errors("The codec with its discriminators", "train smaller ones, or on a device with more memory")


def codebook_memory_errors() -> AbstractContextManager[None]:
    """Raise an `InputError` with advice if memory runs out while the codebooks are initialized."""
    advice = "train a smaller codebook (codec.quantizer), or on a device with more memory"
    return _memory_errors("The k-means that initializes the codebooks", advice)


def step_memory_errors(config: TrainConfig, n_ranks: int) -> AbstractContextManager[None]:
    """Raise an `InputError` with advice if memory runs out during a training step."""
    on_ranks = f" on {n_ranks} ranks" if n_ranks > 1 else ""
    microbatch = config.data.batch_size // config.accumulation // n_ranks
    return _memory_errors(
        f"A batch of {config.data.batch_size} segments{on_ranks} in microbatches of {microbatch}",
        "raise accumulation, or lower data.batch_size or data.segment_seconds",
    )


def validation_memory_errors() -> AbstractContextManager[None]:
    """Raise an `InputError` with advice if memory runs out during validation."""
    return _memory_errors("The longest clip for validation", "lower validation.max_seconds")
