"""The process group of a run: joining it, leaving it, and collective operations."""

from __future__ import annotations

import atexit
import gc
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from codectok.device import resolve_device
from codectok.errors import InputError
from codectok.model.quantization.distributed import gather_rows

from .signals import terminate_with_parent


@dataclass(frozen=True)
class Ranks:
    """Rank of this process among `world_size` processes; alone by default.

    All ranks call the collective methods in the same order, with tensors of the same shape.
    """

    rank: int = 0
    world_size: int = 1

    @property
    def is_first(self) -> bool:
        """True for the rank that writes checkpoints and metrics."""
        return self.rank == 0

    def synchronized(self, module: nn.Module) -> Callable[..., Any]:
        """Wrap `module` so that a backward pass averages its gradients over all ranks."""
        if self.world_size == 1:
            return module
        # Buffers are equal on all ranks by construction, and sending the codebooks at every step would be expensive.
        # Gradients as views of the buckets that are sent take half the memory.
        return DistributedDataParallel(module, broadcast_buffers=False, gradient_as_bucket_view=True)

    def accumulating(self, module: Callable[..., Any], last: bool) -> AbstractContextManager[object]:
        """Context for one pass of a `synchronized` module: gradients are averaged in the `last` pass only."""
        if last or not isinstance(module, DistributedDataParallel):
            return nullcontext()
        return module.no_sync()

    def mean(self, values: Tensor) -> Tensor:
        """Average `values`, in place, over all ranks."""
        if self.world_size > 1:
            dist.all_reduce(values)
            values /= self.world_size
        return values

    def gather(self, rows: Tensor) -> Tensor:
        """Concatenate the rows [n, ...] of all ranks in rank order."""
        return gather_rows(rows)

    def broadcast(self, values: Tensor) -> None:
        """Overwrite `values` on every rank with the values of the first rank."""
        if self.world_size > 1:
            dist.broadcast(values, 0)

    def of_first(self, value: int, device: torch.device) -> int:
        """Return the `value` of the first rank on every rank; waits for all ranks."""
        if self.world_size == 1:
            return value
        found = torch.tensor(value, device=device)
        self.broadcast(found)
        return int(found)

    def any(self, flag: bool, device: torch.device) -> bool:
        """True if `flag` is true on any rank; waits for all ranks."""
        if self.world_size == 1:
            return flag
        return bool(self.mean(torch.tensor(float(flag), device=device)) > 0)

    def barrier(self) -> None:
        """Wait until all ranks have reached this point."""
        if self.world_size > 1:
            dist.barrier()


def local_rank_count(workers: int | None, device: str) -> int:
    """Number of ranks to start on this machine: `workers` if given, otherwise one per GPU, or one on a CPU."""
    return workers or (torch.cuda.device_count() if resolve_device(device).type == "cuda" else 1)


def leave_process_group() -> None:
    """Leave the process group, at the end of the process."""
    # A synchronized module in a reference cycle would keep the group alive after its threads have ended.
    gc.collect()
    dist.destroy_process_group()


def join_process_group(device: str) -> tuple[Ranks, torch.device]:
    """Join the process group that torchrun or Ray Train has started, if any; return this rank and its device.

    The group is joined once per process and shared by all its runs.

    Args:
        device: "auto", "cpu" or "cuda"; with several ranks, each uses the GPU of its local rank.

    Raises:
        InputError: an earlier run of this process uses another kind of device.
    """
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    found = resolve_device(device)
    if world_size == 1 and not dist.is_initialized():
        return Ranks(), found
    if found.type == "cuda" and found.index is None:
        found = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(found)
    if "TORCHELASTIC_RUN_ID" in os.environ:
        terminate_with_parent()
    backend = "nccl" if found.type == "cuda" else "gloo"
    if not dist.is_initialized():
        # Left only at the end of the process: a second group would find the addresses of the first, and a group that a
        # synchronized module keeps alive would deadlock with its own threads.
        dist.init_process_group(backend)
        atexit.register(leave_process_group)
    elif dist.get_backend() != backend:
        raise InputError(f"The ranks already use {dist.get_backend()}, which does not support device={device}.")
    return Ranks(dist.get_rank(), dist.get_world_size()), found
