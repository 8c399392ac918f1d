"""Ids of clips that file names cannot hold, or that file systems take for the same name: each gets a file."""

from __future__ import annotations

import itertools
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from codectok.names import FileNames
from codectok.tokens.codes_file import write_codes
from codectok.tokens.table import TableMetadata, TokenRow
from tests.helpers.command_line import assert_refused, codectok

PLAIN = [
    "clip",
    "speech-hello_1f0c2a3b4d5e_0000000000",
    "a-b",
    "a.b",
    "a..b",
    "ünter",
    "中文",
    "x" * 237,
    "A",
    "con1",
    "a.",
]
ODD = [
    "a/b", "a\\b", "a b", "a:b", "a\0b", "a\nb", "", ".", "..", ".a", "-/", "clip/", "a ", "CON", "nul.x", "lpt1", "~",
    "a~b",
    "x" * 238, "x" * 300, "é" * 130, "中" * 100, "\ud800", "\U0001f600" * 70, "../../etc/passwd", "/", "e\u0301",
]  # fmt: skip


def names_of(ids: list[str]) -> list[str]:
    names = FileNames(ids)
    return [names.of(one, ".wav") for one in ids]


def test_ids_that_are_file_names_keep_them() -> None:
    assert names_of(PLAIN) == [f"{one}.wav" for one in PLAIN]


def test_names_differ_on_every_file_system(tmp_path: Path) -> None:
    ids = [*PLAIN, *ODD, "Clip", "CLIP", "a-B", "\u00e9", "E\u0301", "ﬁ", "fi", "straße", "STRASSE", "strasse"]
    names = names_of(ids)
    folded = [unicodedata.normalize("NFKC", name).casefold() for name in names]
    assert len(set(folded)) == len(ids)
    for name in names:
        (tmp_path / f".{name}.12345678.tmp").touch()
        assert "/" not in name
        assert not name.startswith(".")


def test_names_do_not_depend_on_order() -> None:
    ids = ["a/b", "a-b", "Clip", "clip", "CLIP", "x" * 300]
    for order in itertools.permutations(ids):
        assert dict(zip(order, names_of(list(order)), strict=True)) == dict(zip(ids, names_of(ids), strict=True))
    assert names_of(ids)[3] == "clip.wav"


def test_name_with_hash_begins_readably() -> None:
    (name,) = names_of(["speaker one/hello"])
    assert name.startswith("speaker-one-hello~")


def row(name: str, n: int) -> TokenRow:
    codes = np.full((n, 1), n, np.int64)
    return TokenRow(name, f"{n}.wav", "speech", 0.0, 256 * n / 24_000, 256 * n, codes, None, None, None)


@pytest.fixture(scope="module")
def metadata(codec_folder: Path) -> TableMetadata:
    from codectok import Codec

    return TableMetadata.of(Codec.from_pretrained(codec_folder, "cpu").describe())


IDS = ["a/b", "a-b", "a b", "x" * 300, "x" * 301, "é" * 200, "Clip", "clip", "", "..", "nul", "a\nb"]


@pytest.mark.parametrize("suffix", [".parquet", ".npz"])
def test_whole_table_is_decoded(tmp_path: Path, codec_folder: Path, metadata: TableMetadata, suffix: str) -> None:
    ids = [one for one in IDS if suffix == ".parquet" or (one and one != "..")]
    place = tmp_path / f"codes{suffix}"
    write_codes(place, metadata, [row(name, n + 1) for n, name in enumerate(ids)])
    done = codectok("decode", place, tmp_path / "out", "--codec", codec_folder, "--device", "cpu")
    assert done.exit_code == 0, done.output
    assert len(list((tmp_path / "out").iterdir())) == len(ids)
    chosen = codectok("decode", place, tmp_path / "one", "--codec", codec_folder, "--device", "cpu", "--id", "a/b")
    assert chosen.exit_code == 0, chosen.output
    (path,) = (tmp_path / "one").iterdir()
    assert path.read_bytes() == (tmp_path / "out" / path.name).read_bytes()


def test_id_of_several_rows_is_told_before_decoding(
    tmp_path: Path, codec_folder: Path, metadata: TableMetadata
) -> None:
    place = tmp_path / "codes.parquet"
    write_codes(place, metadata, [row("one", 1), row("two", 2), row("two", 3)])
    command = ("decode", place, tmp_path / "out", "--codec", codec_folder, "--device", "cpu")
    assert_refused(codectok(*command), "two", "several")
    assert not (tmp_path / "out").exists()
    assert codectok(*command, "--id", "one").exit_code == 0
