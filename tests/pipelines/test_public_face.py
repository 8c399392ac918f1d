"""`codectok.pipelines`: all names for a custom job, imported when they are used."""

from __future__ import annotations

import subprocess
import sys

import pytest

import codectok.pipelines


def test_every_name_can_be_imported() -> None:
    for name in codectok.pipelines.__all__:
        assert getattr(codectok.pipelines, name).__name__ == name
    with pytest.raises(AttributeError):
        _ = codectok.pipelines.anything_else


def test_import_is_fast() -> None:
    script = (
        "import sys, codectok.pipelines; print([name for name in ('torch', 'ray', 'pyarrow') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
