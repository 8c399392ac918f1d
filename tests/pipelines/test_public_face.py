"""`codectok.pipelines`: all names for a custom job, imported when they are used."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import codectok.pipelines


def test_every_name_can_be_imported() -> None:
    for name in codectok.pipelines.__all__:
        assert getattr(codectok.pipelines, name).__name__ == name
    with pytest.raises(AttributeError):
        _ = codectok.pipelines.anything_else


def test_lists_of_public_names_agree() -> None:
    source = Path(str(codectok.pipelines.__file__)).read_text()
    imported = {
        alias.name: node.module
        for block in ast.parse(source).body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    modules = {name: f"codectok.pipelines.{module}" for name, module in codectok.pipelines._MODULES.items()}
    assert imported == modules
    assert sorted(modules) == sorted(codectok.pipelines.__all__)


def test_import_is_fast() -> None:
    script = (
        "import sys, codectok.pipelines; print([name for name in ('torch', 'ray', 'pyarrow') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
