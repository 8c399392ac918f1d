"""`--layout` of `codectok export`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.helpers.command_line import assert_refused, codectok, one_line
from tests.helpers.language_models import ROWS, qwen2, write_model
from tests.helpers.tables import metadata, rows, write

LOCAL = ("--engine", "local")


@pytest.fixture
def table(tmp_path: Path, codec: Path) -> Path:
    from codectok import load_codec

    fingerprint = load_codec(str(codec), device="cpu").describe().codec_fingerprint
    write(tmp_path / "tokens" / "part-000000.parquet", rows(6, n_codebooks=1), metadata(1024, 1, fingerprint))
    return tmp_path / "tokens"


def test_layout_of_model_decides_its_exports(codec: Path, table: Path, tmp_path: Path) -> None:
    """The layout stands in all outputs, and another one is refused."""
    model, audio, out = tmp_path / "model", tmp_path / "audio", tmp_path / "out"
    write_model(model, qwen2())
    done = codectok("export", "language-model", model, audio, "--codec", codec, "--layout", "neutts")
    assert done.exit_code == 0, done.output
    assert "layout │ neutts" in one_line(done.stdout)
    assert json.loads((audio / "config.json").read_text())["codectok"]["layout"]["name"] == "neutts"
    arguments = ("--tokenizer", audio, *LOCAL)
    refused = codectok("export", "sequences", table, out, *arguments)
    assert_refused(refused, "layout neutts", "not of unitts", "--layout")
    refused = codectok("export", "megatron", table, out, "--layout", "llasa", *arguments)
    assert_refused(refused, "layout neutts", "not of llasa", "--layout")
    refused = codectok("export", "unitts", table, out, "--model", audio, *LOCAL)
    assert_refused(refused, "layout neutts", "not of unitts")
    made = codectok("export", "sequences", table, out, "--layout", "neutts", *arguments)
    assert made.exit_code == 0, made.output
    ids = pq.read_table(out)["input_ids"].to_pylist()[0]
    begin = ROWS + 1024 + 2
    assert ids == [begin, *(ROWS + rows(6, n_codebooks=1)[0].codes[:, 0]).tolist(), begin + 1, 0]
    described = json.loads(pq.read_schema(out / "part-000000.parquet").metadata[b"codectok"])
    assert described["layout"]["name"] == "neutts"


def test_layout_of_tokenizer_is_checked(table: Path, tmp_path: Path) -> None:
    model, extended = tmp_path / "model", tmp_path / "tokenizer"
    write_model(model, qwen2())
    layout = tmp_path / "mine.yaml"
    layout.write_text("name: mine\nkind: template\ntoken: <a{code}>\n")
    done = codectok("export", "tokenizer", model, extended, "--codec", table, "--model", model, "--layout", layout)
    assert done.exit_code == 0, done.output
    assert "layout │ mine" in one_line(done.stdout)
    refused = codectok("export", "vocabulary", table, tmp_path / "v", "--tokenizer", extended, "--offset", ROWS)
    assert_refused(refused, "layout mine", "not of unitts")
    layout.write_text("name: mine\nkind: template\ntoken: <b{code}>\n")
    arguments = ("--tokenizer", extended, "--offset", ROWS, "--layout", layout)
    refused = codectok("export", "vocabulary", table, tmp_path / "v", *arguments)
    assert_refused(refused, "layout mine", "--layout")


def test_layout_with_fixed_ids_decides_offset(tmp_path: Path) -> None:
    described = metadata(4096, 7).model_copy(update={"n_residuals": 7})
    write(tmp_path / "tokens" / "part-000000.parquet", rows(3, 4096, 7), described)
    arguments = ("export", "sequences", tmp_path / "tokens", tmp_path / "out", "--layout", "orpheus", "--eos", "128009")
    assert_refused(codectok(*arguments, "--offset", 5, *LOCAL), "orpheus", "128266", "--offset")
    made = codectok(*arguments, *LOCAL)
    assert made.exit_code == 0, made.output
    assert "by the layout orpheus" in one_line(made.stdout)
    ids = pq.read_table(tmp_path / "out")["input_ids"].to_pylist()[0]
    codes = rows(3, 4096, 7)[0].codes.astype(np.int64)
    assert ids == [128_257, *(128_266 + 4096 * np.arange(7) + codes).reshape(-1).tolist(), 128_258, 128_009]


def test_unknown_and_unsuitable_layouts_are_refused(table: Path, tmp_path: Path) -> None:
    for form in ("vocabulary", "sequences", "megatron"):
        refused = codectok("export", form, table, tmp_path / "out", "--layout", "nothing")
        assert_refused(refused, "no layout nothing", "llasa")
        assert_refused(codectok("export", form, table, tmp_path / "out", "--layout", "orpheus"), "7 codebooks")
