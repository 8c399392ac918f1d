"""The public names of `codectok.train`."""

from __future__ import annotations

import subprocess
import sys

import pytest

import codectok.train


def test_importing_train_does_not_import_torch() -> None:
    program = "import sys, codectok.train; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize("name", codectok.train.__all__)
def test_public_name_can_be_imported(name: str) -> None:
    assert getattr(codectok.train, name).__name__ == name


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="Trainers"):
        _ = codectok.train.Trainers
