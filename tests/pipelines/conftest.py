"""What several tests of jobs need."""

from __future__ import annotations

from pathlib import Path

import pytest

from codectok import Codec


@pytest.fixture(scope="session")
def codec_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("codec") / "nano"
    Codec.from_config("nano", seed=1).save_pretrained(folder)
    return folder
