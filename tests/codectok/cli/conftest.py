from __future__ import annotations

from pathlib import Path

import pytest

from codectok import Codec


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a codec with random weights."""
    folder = tmp_path_factory.mktemp("codec") / "nano"
    Codec.from_config("nano", seed=1).save_pretrained(folder)
    return folder
