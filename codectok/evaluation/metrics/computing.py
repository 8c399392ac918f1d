"""How metrics compute: on one thread, so that figures do not depend on the number of cores, and without messages."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Compute with PyTorch on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Discard messages that a package prints while it loads a model."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield
