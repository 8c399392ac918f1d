"""Inputs of exports of conversations."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.chat import save_chat_tokenizer
from tests.helpers.conversations import TALKS, write_talks


@pytest.fixture(scope="module")
def instruct(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_chat_tokenizer(tmp_path_factory.mktemp("instruct"), "chatml")


@pytest.fixture(scope="module")
def talks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_talks(tmp_path_factory.mktemp("talks") / "talks.jsonl", TALKS)
