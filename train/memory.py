"""How a training process keeps its memory."""

from __future__ import annotations

import ctypes
import sys

# Of glibc's `mallopt`, from malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4
_NEVER = -1


def keep_freed_memory() -> None:
    """Let this process hold on to memory that it frees, where the C library is glibc; elsewhere nothing changes.

    A step on a CPU takes and frees the same large blocks as the step before. By default glibc gives them back to the
    system, which has to clear every page of them anew.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, _NEVER)
