"""What several tests of jobs need."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from codectok import Codec
from tests.helpers.exports import write_parts


@pytest.fixture(scope="session")
def codec_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("codec") / "nano"
    Codec.from_config("nano", seed=1).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_parts(tmp_path_factory.mktemp("tables") / "tokens", 30)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.helpers.tokenizers import save_tokenizer  # other tests start without transformers

    return save_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("texts") / "books.jsonl"
    path.write_text("".join(json.dumps({"text": f"page {n} of a book", "id": f"p{n}"}) + "\n" for n in range(400)))
    return path
