"""Names of files are bytes: the same output under every locale, also for names that are not UTF-8."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile

from codectok.names import printable, utf8_path
from tests.helpers.audio import tone
from tests.helpers.evaluation import QUICK

BAD = "b\udce9d"  # a byte of Latin-1
NAMES = ["été.wav", f"n{BAD}.wav", "sub日/c.wav", f"sub{BAD}/d.wav", "\u202e.wav", "a\nb.wav"]
ASCII_LOCALE = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
SAME = (".tar", ".parquet", ".npz", ".wav", ".flac", ".jsonl", "shards.json")
# Runs verbs in one process, as the console script starts them.
SCRIPT = """
import json, sys
from codectok.cli.encoding import use_utf8
use_utf8()
from codectok.cli.main import app
for arguments in json.loads(sys.argv[1]):
    try:
        app(arguments)
    except SystemExit as end:
        if end.code:
            sys.exit("exit %s of %s" % (end.code, ascii(arguments)))
"""


def write_corpus(folder: Path) -> None:
    for number, name in enumerate(
        ["été.wav", f"n{BAD}.wav", "sub日/c.wav", f"sub{BAD}/d.wav", "\u202e.wav", "a\nb.wav"]
    ):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        soundfile.write(buffer, tone(2.5, 24_000, 200 + 20 * number), 24_000, format="WAV")
        path.write_bytes(buffer.getvalue())
    rows = [{"path": "été.wav", "text": "déjà vu", "speaker": "Zoë"}, {"path": "sub日/c.wav", "text": "日本"}]
    manifest = folder.parent / "mé.jsonl"
    text = "".join(
        json.dumps(row | {"path": f"{folder.name}/{row['path']}"}, ensure_ascii=False) + "\n" for row in rows
    )
    manifest.write_text(text, encoding="utf-8", errors="surrogateescape")


def verbs(codec: str) -> list[list[str]]:
    local, corpus = ["--engine", "local"], "corpé"
    return [
        ["shard", corpus, f"shards{BAD}", *local],
        ["shard", "mé.jsonl", "shardsé", *local],
        ["shard", f"{corpus}/n{BAD}.wav", f"{corpus}/sub{BAD}", "shards one", *local],
        ["verify", f"shards{BAD}"],
        ["inspect", f"shards{BAD}"],
        ["tokenize", corpus, f"tokens{BAD}", "--codec", codec, "--device", "cpu", *local],
        ["verify", f"tokens{BAD}"],
        ["inspect", f"tokens{BAD}"],
        ["export", "compact", f"tokens{BAD}", f"compact{BAD}", *local],
        ["encode", corpus, f"codes{BAD}.parquet", "--codec", codec, "--device", "cpu"],
        ["encode", corpus, "codesé.npz", "--codec", codec, "--device", "cpu"],
        ["decode", f"codes{BAD}.parquet", f"wavs{BAD}", "--codec", codec, "--device", "cpu"],
        ["reconstruct", f"{corpus}/n{BAD}.wav", f"again{BAD}.wav", "--codec", codec, "--device", "cpu"],
        ["evaluate", corpus, f"evaluation{BAD}", "--codec", codec, "--device", "cpu", *QUICK],
    ]


def run(folder: Path, arguments: list[list[str]], **variables: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-c", SCRIPT, json.dumps(arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, env={**os.environ, **variables}, check=False)


def hashes(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name.endswith(SAME))
    named = ((printable(path.relative_to(folder)), path) for path in files)
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in named if "/plan/" not in name}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse names that are not UTF-8")
def test_output_is_the_same_under_every_locale(codec_folder: Path, tmp_path: Path) -> None:
    found = {}
    for name, variables in {"utf8": {"PYTHONUTF8": "1"}, "ascii": ASCII_LOCALE}.items():
        folder = tmp_path / name
        folder.mkdir()
        write_corpus(folder / "corpé")
        (folder / f"codec{BAD}").symlink_to(codec_folder)
        done = run(folder, verbs(f"codec{BAD}"), **variables)
        assert done.returncode == 0, done.stderr[-1000:]
        assert b"Traceback" not in done.stderr
        found[name] = hashes(folder)
    assert found["utf8"] == found["ascii"]
    assert len([name for name in found["utf8"] if name.endswith(".wav")]) >= 6


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse names that are not UTF-8")
@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_output_of_the_terminal_never_fails(encoding: str, tmp_path: Path) -> None:
    name = f"日é{BAD}"
    write_corpus(tmp_path / name)
    done = run(tmp_path, [["inspect", f"{name}/n{BAD}.wav"], ["inspect", f"no{name}"]], PYTHONIOENCODING=encoding)
    assert b"exit 2 of" in done.stderr
    assert done.stderr.startswith(b"Error: ")
    assert b"Traceback" not in done.stderr
    assert done.stdout


def test_python_starts_again_once_under_another_locale(tmp_path: Path) -> None:
    script = (
        "from codectok.cli.encoding import use_utf8; use_utf8(); import sys, os\nprint(sys.argv, os.fsencode('\\xe9'))"
    )
    command: list[str | bytes] = [sys.executable, "-B", "-c", script, "é", b"n\xe9"]
    environment = {**os.environ, **ASCII_LOCALE}
    done = subprocess.run(command, capture_output=True, env=environment, check=True)
    assert done.stdout.decode().strip() == r"['-c', 'é', 'n\udce9'] b'\xc3\xa9'"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse names that are not UTF-8")
def test_utf8_path_is_an_alias_only_where_it_is_needed(tmp_path: Path) -> None:
    folder = tmp_path / BAD
    folder.mkdir()
    with utf8_path(folder) as alias:
        str(alias).encode()
        (alias / "a").write_text("a", encoding="utf-8")
    assert not alias.exists()
    assert (folder / "a").exists()
    with utf8_path(tmp_path / "é") as alias:
        assert alias == tmp_path / "é"
