"""Worker processes that read training data: how they start, and how their deaths and failures are reported.

The death of a worker becomes a `PassingError`, after which `codectok.train.launch.ray_train` starts the ranks again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from torch import Tensor
from torch.utils.data import DataLoader, get_worker_info

from codectok.errors import InputError, PassingError, first_line
from codectok.train.signals import ignore_stop_signals

Item = TypeVar("Item")


def start_worker(_: int) -> None:
    """Prepare a new worker process of a `DataLoader`."""
    ignore_stop_signals()


@contextmanager
def worker_errors() -> Iterator[None]:
    """Replace torch's error about a dead worker, which it may raise at any point of the program.

    Raises:
        PassingError: a worker has died.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_worker_death(error):
            raise
        raise _worker_death(error) from None


def is_worker_death(error: RuntimeError) -> bool:
    """True if `error` reports the death of a worker, not a failure of the code that it interrupted."""
    return str(error).startswith("DataLoader worker")


@contextmanager
def reading(loader: DataLoader[Any]) -> Iterator[Iterator[Any]]:
    """Yield the batches of `loader`, and end its workers on exit.

    After an error the traceback keeps the batches alive until Python collects reference cycles. By then the queues of
    the workers may be closed before the message that ends the workers is sent, and torch waits five seconds for each.
    """
    batches = iter(loader)
    if not loader.num_workers:
        yield batches
        return
    try:
        yield received(batches)
    finally:
        try:
            batches._shutdown_workers()  # type: ignore[attr-defined]  # torch has no public way
        except RuntimeError as error:
            if not is_worker_death(error):  # a worker that dies now has nothing left to send
                raise
        for worker in batches._workers:  # type: ignore[attr-defined]
            worker.kill()  # workers ignore the signal by which torch ends those that hang
            worker.join()


def received(batches: Iterator[Item]) -> Iterator[Item]:
    """Yield the batches that workers send.

    Raises:
        PassingError: a worker died while it was sending a batch.
    """
    while True:
        try:
            batch = next(batches)
        except StopIteration:
            return
        except (ConnectionError, EOFError) as error:
            raise _worker_death(error) from None
        yield batch


def in_shared_memory(tensor: Tensor) -> Tensor:
    """Move `tensor` to shared memory in a worker process.

    Without this torch moves it while the batch is being sent; a failure there leaves the parent waiting.
    """
    if get_worker_info() is None:
        return tensor
    shared: Tensor = tensor.share_memory_()  # type: ignore[no-untyped-call]
    return shared


def shared_memory_error() -> InputError:
    """The error for batches that do not fit into shared memory."""
    return InputError(
        "The batches that workers read ahead do not fit into shared memory (/dev/shm); give the container more,"
        " as in docker run --shm-size=8g, or lower data.num_workers (0 needs none)."
    )


def _worker_death(error: Exception) -> PassingError:
    reason = first_line(error).rstrip(". ")
    return PassingError(
        f"A process that reads training data died ({reason}); run the same command to resume from the last checkpoint,"
        " and lower data.num_workers if memory is short."
    )
