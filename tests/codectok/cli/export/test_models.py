"""Commands `codectok export huggingface`, `tokenizer` and `language-model`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
from transformers import AutoTokenizer

from tests.helpers.command_line import assert_refused, codectok, one_line
from tests.helpers.language_models import ROWS, TOKENS, qwen2, write_model
from tests.helpers.tables import metadata, rows, write


@pytest.fixture
def table(tmp_path: Path) -> Path:
    write(tmp_path / "tokens" / "part-000000.parquet", rows(6), metadata(64, 1))
    return tmp_path / "tokens"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "qwen"
    write_model(folder, qwen2())
    return folder


def test_export_help_shows_example_without_transformers() -> None:
    for form in ("huggingface", "tokenizer", "language-model"):
        result = codectok("export", form, "--help")
        assert result.exit_code == 0
        assert f"codectok export {form}" in one_line(result.stdout)
    arguments = [sys.executable, "-X", "importtime", "-m", "codectok", "export", "language-model", "--help"]
    loaded = subprocess.run(arguments, capture_output=True, text=True, check=True).stderr
    assert not [line for line in loaded.splitlines() if line.split("|")[-1].strip() in ("torch", "transformers")]


def test_export_huggingface(table: Path, tmp_path: Path) -> None:
    result = codectok("export", "huggingface", table)
    assert result.exit_code == 0, result.output
    assert "rows │ 6 " in one_line(result.stdout)
    loaded = datasets.load_dataset(str(table), split="train", cache_dir=str(tmp_path / "cache"))
    assert [row["id"] for row in loaded] == [row.id for row in rows(6)]
    assert_refused(codectok("export", "huggingface", table), "README.md is already there")
    assert_refused(codectok("export", "huggingface", tmp_path / "nowhere"), "not a folder with a token table")


def test_export_tokenizer(table: Path, model: Path, codec: Path, tmp_path: Path) -> None:
    for number, (source, size) in enumerate(((table, 64), (codec, 1024))):
        out = tmp_path / f"out-{number}"
        result = codectok("export", "tokenizer", model, out, "--codec", source, "--model", model)
        assert result.exit_code == 0, result.output
        assert f"tokens │ {ROWS + size + 8:,} " in one_line(result.stdout)
        assert len(AutoTokenizer.from_pretrained(out)) == ROWS + size + 8
    arguments = ("export", "tokenizer", model, tmp_path / "padding", "--codec", table)
    result = codectok(*arguments, "--offset", TOKENS)
    assert f"old rows reused │ {ROWS - TOKENS}; initialize them" in one_line(result.stdout)
    assert len(AutoTokenizer.from_pretrained(tmp_path / "padding")) == TOKENS + 64 + 8
    arguments = ("export", "tokenizer", model, tmp_path / "no", "--codec", table)
    assert_refused(codectok(*arguments, "--offset", 5), "the codes would begin at 5")
    assert_refused(codectok("export", "tokenizer", table, tmp_path / "no", "--codec", table), "holds no tokenizer")
    assert not (tmp_path / "no").exists()


def test_export_language_model_pads_the_vocabulary(model: Path, codec: Path, tmp_path: Path) -> None:
    arguments = (
        "export",
        "language-model",
        model,
        tmp_path / "out",
        "--codec",
        codec,
        "--pad-vocabulary-to-multiple-of",
    )
    done = codectok(*arguments, 64)
    assert done.exit_code == 0, done.output
    assert "to a multiple of 64" in one_line(done.stdout)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["vocab_size"] % 64 == 0
    assert codectok(*arguments, 0).exit_code == 2


def test_export_language_model(model: Path, codec: Path, tmp_path: Path) -> None:
    arguments = ("export", "language-model", model, "--codec", codec)
    result = codectok(*arguments, tmp_path / "out")
    assert result.exit_code == 0, result.output
    shown = one_line(result.stdout)
    for part in (f"{ROWS} -> {ROWS + 1032:,}", f"1,024 from {ROWS} on", "projection, scale rms", "lm_head.weight"):
        assert part in shown
    assert json.loads((tmp_path / "out" / "config.json").read_text())["vocab_size"] == ROWS + 1032
    assert_refused(codectok(*arguments, tmp_path / "out"), "already exists")
    assert_refused(codectok(*arguments, tmp_path / "no", "--start", "codebook"), "have 32 values", "64")
    assert_refused(codectok(*arguments, tmp_path / "no", "--scale", "big"), "--scale must be a number or rms")
    assert_refused(codectok(*arguments, tmp_path / "no", "--scale", 0), "number above 0")
    assert_refused(
        codectok("export", "language-model", codec, "--codec", codec, tmp_path / "no"), "names no model_type"
    )
    assert_refused(codectok("export", "language-model", tmp_path, "--codec", codec, tmp_path / "no"), "config.json")
    for options, how in ((("--start", "random"), "random"), (("--scale", "8"), "projection, scale 8.0")):
        result = codectok(*arguments, tmp_path / how[:6], "--offset", 400, *options)
        assert result.exit_code == 0, result.output
        assert f"│ {how} " in one_line(result.stdout)
        assert np.isclose(json.loads((tmp_path / how[:6] / "config.json").read_text())["codectok"]["offset"], 400)


def test_export_language_model_uses_rows_of_padding(model: Path, codec: Path, tmp_path: Path) -> None:
    """The other exports take the ids from the new folder, and refuse tokenizers that do not fit it."""
    arguments = ("export", "language-model", model, "--codec", codec)
    out = tmp_path / "out"
    result = codectok(*arguments, out, "--offset", "tokens")
    assert result.exit_code == 0, result.output
    shown = one_line(result.stdout)
    end = TOKENS + 1032
    for part in (
        f"{ROWS} -> {end:,}",
        f"1,024 from {TOKENS} on",
        f"{ROWS - TOKENS} that had no token",
        "0 unused tokens",
    ):
        assert part in shown
    for wrong, message in (("token", "an id or tokens"), ("-5", "an id or tokens"), (TOKENS - 1, "uses for text")):
        assert_refused(codectok(*arguments, tmp_path / "no", "--offset", wrong), message)
    assert not (tmp_path / "no").exists()

    vocabulary = ("export", "vocabulary", codec)
    done = codectok(*vocabulary, tmp_path / "vocabulary", "--tokenizer", out)
    assert done.exit_code == 0, done.output
    told = json.loads((tmp_path / "vocabulary" / "vocabulary.json").read_text())
    assert (told["first"], told["offset"], told["end"]) == (TOKENS, TOKENS, end)

    late = AutoTokenizer.from_pretrained(out)
    late.add_tokens(["<|late|>"])
    late.save_pretrained(tmp_path / "late")
    with_late = ("--tokenizer", tmp_path / "late", "--model", out)
    assert_refused(codectok(*vocabulary, tmp_path / "no", *with_late), f"<|late|>' at {end}", f"has {end} rows")
    other = AutoTokenizer.from_pretrained(model)
    other.add_tokens(["<|late|>"])
    other.save_pretrained(tmp_path / "other")
    with_other = ("--tokenizer", tmp_path / "other", "--model", out)
    assert_refused(codectok(*vocabulary, tmp_path / "no", *with_other), "among the audio tokens")
