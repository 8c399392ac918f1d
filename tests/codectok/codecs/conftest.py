from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from tests.helpers.transformers_models import save_model


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Tiny models are slower with several threads, and the bits of their initial weights depend on the number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folder of the tiny random codec of a family of transformers."""
    root = tmp_path_factory.mktemp("transformers")

    def folder_of(family: str) -> Path:
        folder = root / family
        return folder if folder.exists() else save_model(family, folder)

    return folder_of
