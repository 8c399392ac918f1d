"""Files of weights are copied in blocks."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from codectok.errors import InputError
from codectok.exports.language_model.safetensors_file import _copy


def test_file_that_becomes_shorter_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"four")
    with path.open("rb") as source, pytest.raises(InputError, match=r"model\.safetensors became shorter"):
        _copy(source, io.BytesIO(), 5)
