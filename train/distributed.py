"""The processes that train together: which one this is, and what they do in common."""

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

from .signals import stop_with_the_parent


@dataclass(frozen=True)
class Ranks:
    """This process among all; alone by default."""

    rank: int = 0
    world_size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes what all have in common."""
        return self.rank == 0

    def synchronized(self, module: nn.Module) -> Callable[..., Any]:
        """`module`, such that its gradients become means over all ranks in the backward pass."""
        if self.world_size == 1:
            return module
        # Buffers are the same everywhere by construction; to send codebooks at every step would cost more than they do.
        # Gradients lie in what is sent: beside it they would take as much memory again.
        return DistributedDataParallel(module, broadcast_buffers=False, gradient_as_bucket_view=True)

    def accumulating(self, module: Callable[..., Any], last: bool) -> AbstractContextManager[object]:
        """Around a forward and backward pass of a `synchronized` module: gradients wait for the last pass."""
        if last or not isinstance(module, DistributedDataParallel):
            return nullcontext()
        return module.no_sync()

    def mean(self, values: Tensor) -> Tensor:
        """Means over the ranks."""
        if self.world_size > 1:
            dist.all_reduce(values)
            values /= self.world_size
        return values

    def gather(self, rows: Tensor) -> Tensor:
        """The rows [n, ...] of all ranks, in the order of ranks."""
        return gather_rows(rows)

    def take_from_first(self, values: Tensor) -> None:
        """Let `values` on every rank be those of the first."""
        if self.world_size > 1:
            dist.broadcast(values, 0)

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether `flag` is true on any rank; waits for all of them."""
        if self.world_size == 1:
            return flag
        return bool(self.mean(torch.tensor(float(flag), device=device)) > 0)

    def wait(self) -> None:
        """Until all ranks are here."""
        if self.world_size > 1:
            dist.barrier()


def ranks_of_this_machine(workers: int | None, device: str) -> int:
    """How many ranks are started here: `workers`, or one for each GPU if `device` means those, or one."""
    return workers or (torch.cuda.device_count() if resolve_device(device).type == "cuda" else 1)


def leave_ranks() -> None:
    """Leave the others, at the end of the process."""
    # A synchronized module that is still there, in a cycle, would keep the group beyond the end of its threads.
    gc.collect()
    dist.destroy_process_group()


def join_ranks(device: str) -> tuple[Ranks, torch.device]:
    """This process among those that `torchrun` or a framework has started, and its device; alone where there are none.

    Once together they stay so until they end, however many runs they make.

    Args:
        device: "auto", "cpu", "cuda"; with several ranks on GPUs each takes that of its number on its machine.

    Raises:
        InputError: the runs of a process are for different kinds of device.
    """
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    found = resolve_device(device)
    if world_size == 1 and not dist.is_initialized():
        return Ranks(), found
    if found.type == "cuda" and found.index is None:
        found = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(found)
    if "TORCHELASTIC_RUN_ID" in os.environ:
        stop_with_the_parent()
    backend = "nccl" if found.type == "cuda" else "gloo"
    if not dist.is_initialized():
        # Left at the end of the process only. A group that is joined after another finds the addresses of that one, and
        # one that lives on in a synchronized module would be waited for by threads that wait for it in turn.
        dist.init_process_group(backend)
        atexit.register(leave_ranks)
    elif dist.get_backend() != backend:
        raise InputError(f"Ranks have come together by {dist.get_backend()}, which is not for device={device}.")
    return Ranks(dist.get_rank(), dist.get_world_size()), found
