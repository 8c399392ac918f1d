"""How a training process keeps its memory, and what it says where that does not suffice."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch

from codectok.errors import InputError

from .config import TrainConfig

# Of glibc's `mallopt`, from malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4
_NEVER = -1
# What errors say that come from the driver, a library on the GPU, or the CPU's allocator.
_REFUSALS = ("out of memory", "ALLOC_FAILED", "DefaultCPUAllocator")


def keep_freed_memory(device: torch.device) -> None:
    """Let this process, which trains on `device`, hold on to memory that it frees, where that is of use.

    That is on a CPU with glibc; elsewhere nothing changes. A step there takes and frees the same large blocks as the
    step before. By default glibc gives them back to the system, which has to clear every page of them anew.
    """
    if device.type != "cpu" or sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, _NEVER)


@contextmanager
def _explained(what: str, advice: str) -> Iterator[None]:
    """Says in one sentence what did not fit into memory, and what can be done."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        known = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not known and not any(words in str(error) for words in _REFUSALS):
            raise
        raise InputError(f"{what} does not fit into memory; {advice}.") from None


def networks_fit() -> AbstractContextManager[None]:
    """While networks are built."""
    return _explained("The codec with its discriminators", "train smaller ones, or on a device with more memory")


def start_fits() -> AbstractContextManager[None]:
    """While codebooks are started."""
    advice = "train a smaller codebook (codec.quantizer), or on a device with more memory"
    return _explained("The k-means that the codebooks start with", advice)


def batch_fits(config: TrainConfig, n_ranks: int) -> AbstractContextManager[None]:
    """While a step is made on a rank's part of a batch."""
    among = f" on {n_ranks} ranks" if n_ranks > 1 else ""
    part = config.data.batch_size // config.accumulation // n_ranks
    return _explained(
        f"A batch of {config.data.batch_size} segments{among} in parts of {part}",
        "raise accumulation, or lower data.batch_size or data.segment_seconds",
    )


def validation_fits() -> AbstractContextManager[None]:
    """While the codec is validated."""
    return _explained("The longest clip for validation", "lower validation.max_seconds")
