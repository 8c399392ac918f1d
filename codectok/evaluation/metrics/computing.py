"""One thread for the models of metrics, so that figures do not depend on the number of cores."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Compute with PyTorch on one thread, without gradients."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            yield
    finally:
        torch.set_num_threads(threads)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Discard messages that a package prints while it loads a model."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield
