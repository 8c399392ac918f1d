"""Encodings of manifests and of texts in tars."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path

import pytest

from codectok import InputError
from codectok.sources.encodings import StrictText, UndecodableError, check_encoding, decode_text
from codectok.sources.manifests.read import read_manifest
from codectok.tokens.table import read_rows
from tests.helpers.command_line import assert_refused, codectok
from tests.helpers.evaluation import QUICK
from tests.helpers.jobs import rejects, run, shard_job
from tests.helpers.tars import all_samples, write_tar

from .test_containers import flac

WORDS = "café naïve 語"
MARKED = ["utf-8", "utf-8-sig", "utf-16", "utf-32"]
TABLE = f"path,text\na.wav,{WORDS}\nb.wav,plain\n"


@pytest.mark.parametrize("encoding", MARKED)
@pytest.mark.parametrize("name", ["x.csv", "x.csv.gz", "x.jsonl"])
def test_manifests_are_read_by_their_mark(encoding: str, name: str, tmp_path: Path) -> None:
    lines = json.dumps({"path": "a.wav", "text": WORDS}, ensure_ascii=False) + "\n"
    data = (lines if name == "x.jsonl" else TABLE).encode(encoding)
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    assert next(iter(read_manifest(str(tmp_path), name))).text == WORDS


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16-le", "utf-16-be", "shift_jis"])
@pytest.mark.parametrize("rows", [0, 5000])
def test_other_encodings_must_be_named(encoding: str, rows: int, tmp_path: Path) -> None:
    text = "語" if encoding == "shift_jis" else "café"
    table = "path,text\n" + "b.wav,plain\n" * rows + f"a.wav,{text}\n"
    (tmp_path / "x.csv").write_bytes(table.encode(encoding))
    with pytest.raises(InputError, match="--encoding"):
        list(read_manifest(str(tmp_path), "x.csv"))
    assert list(read_manifest(str(tmp_path), "x.csv", encoding))[-1].text == text


@pytest.mark.parametrize("lines", [1, 30, 4000])
def test_error_says_where_the_bytes_are(lines: int) -> None:
    good = "path ü\n".encode() * lines
    with pytest.raises(UndecodableError, match=rf"byte {len(good) + 1}, in line {lines + 1}, \(ff\)"):
        list(StrictText(io.BytesIO(good + b"x\xff\n" + good)))
    with pytest.raises(UndecodableError, match=rf"byte {len(good) + 1} \(ff\)"):
        decode_text(good + b"x\xff\n" + good)


@pytest.mark.parametrize(
    "data", [b"a\0b", b"\xff\xfea", b"\xff\xfe\x00\xd8", b"\xed\xa0\x80", "café".encode("utf-16-le")]
)
def test_bytes_that_are_not_text_are_refused(data: bytes) -> None:
    with pytest.raises(UndecodableError):
        decode_text(data)


def test_mark_is_stronger_than_a_named_encoding() -> None:
    assert decode_text("ü".encode("utf-8-sig"), "latin-1") == decode_text("ü".encode("utf-16"), "latin-1") == "ü"
    assert check_encoding("Latin1") == "iso8859-1"
    for name in ("no such", "base64", "rot13", ""):
        with pytest.raises(InputError, match="encoding"):
            check_encoding(name)


def test_texts_in_tars_are_never_guessed(tmp_path: Path) -> None:
    texts = {
        "bom": "\ufeffwords\r\n".encode(),
        "utf16": WORDS.encode("utf-16"),
        "latin": "café".encode("latin-1"),
        "nul": b"wo\0rds",
        "bad": b"words",
    }
    members = [
        (f"{name}.{end}", data) for name, text in texts.items() for end, data in (("flac", flac(3)), ("txt", text))
    ]
    members += [("bad.json", b'{"speaker": "caf\xe9"}')]
    write_tar(tmp_path / "a.tar", members)
    run(shard_job(), tmp_path / "a.tar", tmp_path / "out")
    assert {sample.source: sample.text for sample, _ in all_samples(tmp_path / "out")} == {
        "a.tar/bom.flac": "words",
        "a.tar/utf16.flac": WORDS,
    }
    found = {row["source"]: (row["reason"], row["message"]) for row in rejects(tmp_path / "out")}
    assert {name: reason for name, (reason, _) in found.items()} == dict.fromkeys(
        ["a.tar/latin", "a.tar/nul", "a.tar/bad"], "unreadable"
    )
    assert "'txt'" in str(found["a.tar/latin"][1])
    assert "'json'" in str(found["a.tar/bad"][1])


def test_named_encoding_is_part_of_the_job(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", [("k.flac", flac(3)), ("k.txt", "café".encode("latin-1"))])
    for deduplicate in (False, True):
        out = tmp_path / f"out-{deduplicate}"
        run(shard_job(encoding="latin1", deduplicate=deduplicate), tmp_path / "a.tar", out)
        assert [sample.text for sample, _ in all_samples(out)] == ["café"]
        assert not rejects(out)
    with pytest.raises(InputError, match="text-encoding"):
        run(shard_job(), tmp_path / "a.tar", tmp_path / "out-False")


def test_encode_and_evaluate_read_manifests_of_a_named_encoding(codec_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "k.flac").write_bytes(flac(3))
    (tmp_path / "m.csv").write_bytes("path,text\nk.flac,café\n".encode("latin-1"))
    manifest, codes = tmp_path / "m.csv", tmp_path / "codes.parquet"
    assert_refused(codectok("encode", manifest, codes, "--codec", codec_folder), "--encoding")
    done = codectok("encode", manifest, codes, "--codec", codec_folder, "--encoding", "latin-1")
    assert done.exit_code == 0, done.output
    assert [row.text for row in read_rows(codes)] == ["café"]
    options = ("--codec", codec_folder, "--encoding", "latin-1", *QUICK)
    measured = codectok("evaluate", manifest, tmp_path / "out", *options)
    assert measured.exit_code == 0, measured.output
