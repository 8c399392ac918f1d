from __future__ import annotations

from pathlib import Path

import pytest

DATA = Path(__file__).parent / "data"


@pytest.fixture(params=["student", "teacher"])
def golden(request: pytest.FixtureRequest) -> Path:
    """A folder with a reference checkpoint, its input and its outputs."""
    return DATA / "golden" / request.param
