"""Dataset cards of token tables, read by `datasets` and `huggingface_hub`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from huggingface_hub import DatasetCard

from codectok import Codec, InputError
from codectok.exports.dataset_card import size_category, write_dataset_card
from codectok.tokens.table import TableMetadata, TokenRow, read_rows
from tests.helpers.tables import metadata, rows, write


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Two part files, and the job's own files in a folder below, one of them Parquet."""
    folder = tmp_path / "tokens"
    everything = rows(30)
    write(folder / "part-000000.parquet", everything[:20], metadata())
    write(folder / "part-000001.parquet", everything[20:], metadata())
    write(folder / "_codectok" / "rejects" / "unit-000000.parquet", everything[:3], metadata())
    (folder / "_codectok" / "stats.json").write_text(json.dumps({"rows": 30}))
    return folder


@pytest.mark.parametrize("streaming", [False, True])
def test_load_dataset_reads_table_folder(table: Path, tmp_path: Path, streaming: bool) -> None:
    totals = write_dataset_card(table)
    loaded = datasets.load_dataset(str(table), streaming=streaming, cache_dir=str(tmp_path / "cache"))
    assert list(loaded) == ["train"]
    found, expected = list(loaded["train"]), list(read_rows(table))
    assert len(found) == totals.rows == 30
    for row, own in zip(found, expected, strict=True):
        assert (row["id"], row["text"], row["dataset"]) == (own.id, own.text, own.dataset)
        np.testing.assert_array_equal(np.array(row["codes"]).reshape(-1, 2), own.codes)


def test_card_describes_table(table: Path) -> None:
    languages = [
        TokenRow(**{**vars(row), "language": code}) for row, code in zip(rows(3), ("en", "zh", "Klingon"), strict=True)
    ]
    write(table / "part-000002.parquet", languages, metadata())
    write_dataset_card(table)
    card = DatasetCard.load(table / "README.md")
    (config,) = card.data.configs
    assert re.fullmatch(r"content [0-9a-f]{16}", config.pop("description"))
    assert card.data.to_dict() == {
        "language": ["en", "zh"],
        "tags": ["audio", "audio-tokens", "codectok"],
        "size_categories": ["n<1K"],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "*.parquet"}]}],
    }
    frames = sum(len(row.codes) for row in read_rows(table))
    for part in (
        "# tokens",
        "nano",
        "| clips | 33 |",
        f"| codes | {2 * frames:,} (2 x 93.75 per second, each 0 to 1023) |",
        "d, e",
    ):
        assert part in card.text


@pytest.mark.parametrize("name", ["tokens", 'the "best" tokens'])
def test_card_snippets_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    codec = Codec.from_config("nano", device="cpu")
    codec.save_pretrained("codec")
    clip = [TokenRow(**{**vars(row), "codes": row.codes[:, :1]}) for row in rows(2)]
    write(tmp_path / name / "0.parquet", clip, TableMetadata.of(codec.describe()))
    write_dataset_card(tmp_path / name)
    names: dict[str, Any] = {}
    for snippet in re.findall(r"```python\n(.*?)```", (tmp_path / name / "README.md").read_text(), re.DOTALL):
        exec(snippet, names)
    assert len(names["waveform"]) == len(clip[-1].codes) * codec.frame_size


@pytest.mark.parametrize(
    ("n_rows", "category"),
    [
        (0, "n<1K"),
        (999, "n<1K"),
        (1000, "1K<n<10K"),
        (10**6, "1M<n<10M"),
        (5 * 10**8, "100M<n<1B"),
        (2 * 10**9, "1B<n<10B"),
    ],
)
def test_size_category_names(n_rows: int, category: str) -> None:
    assert size_category(n_rows) == category


def test_card_invalidates_datasets_cache(table: Path, tmp_path: Path) -> None:
    """Otherwise `datasets` returns the cached rows of the other folder."""
    other = tmp_path / "elsewhere" / "tokens"
    write(other / "part-000000.parquet", rows(9), metadata())

    def ids(folder: Path) -> list[str]:
        write_dataset_card(folder, overwrite=True)
        return datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))["id"][:]

    assert ids(table) == [row.id for row in rows(30)]
    assert ids(other) == [row.id for row in rows(9)]
    write(other / "part-000001.parquet", rows(3), metadata())
    assert len(ids(other)) == 12
    card = (other / "README.md").read_text()
    write(other / "part-000001.parquet", rows(3), metadata(fingerprint="g" * 64))
    write(other / "part-000000.parquet", rows(9), metadata(fingerprint="g" * 64))
    ids(other)
    assert (other / "README.md").read_text() != card


def test_existing_readme_is_not_overwritten(table: Path, tmp_path: Path) -> None:
    (table / "README.md").write_text("mine")
    with pytest.raises(InputError, match="already there"):
        write_dataset_card(table)
    assert (table / "README.md").read_text() == "mine"
    with pytest.raises(InputError, match="not a folder with a token table"):
        write_dataset_card(table / "part-000000.parquet")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no Parquet file"):
        write_dataset_card(tmp_path / "empty")
