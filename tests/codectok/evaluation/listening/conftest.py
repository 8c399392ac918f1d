from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.listening import write_listening_test


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_listening_test(tmp_path / "test", "both")
    (tmp_path / "secret.wav").write_bytes(b"secret")
    (tmp_path / "test" / "secret.wav").write_bytes(b"secret")
    (tmp_path / "test" / "stimuli" / "secret.wav").write_bytes(b"secret")
    return tmp_path / "test"


@pytest.fixture
def client(folder: Path) -> Iterator[Any]:
    """Sends requests to a server on loopback."""
    from tests.helpers.listening_client import serve

    with serve(folder) as client:
        yield client
