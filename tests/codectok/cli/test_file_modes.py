"""Files and folders that any verb writes follow the umask."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import soundfile

from codectok.cli.export.app import app as export_app
from codectok.cli.imports.app import app as import_app
from codectok.cli.main import app
from tests.helpers.audio import tone
from tests.helpers.command_line import codectok, command_names
from tests.helpers.evaluation import QUICK
from tests.helpers.language_models import qwen2, write_model
from tests.helpers.modes import umask, wrong_modes
from tests.helpers.storage import DATA
from tests.train.conftest import TINY

TRAINING = " ".join(["codec={}", *TINY, "steps=4", "validation.shards=shards", "validation.interval=2"])
DOCUMENTS = "--tokenizer lm-audio --text given/books.jsonl --packing next-fit --length 512 --engine local"
CHAT = "--tokens tokens --tokenizer lm-audio --template given/chat.jinja --engine local"
COMMANDS = (
    "import-distilcodec given/student imported --step 42",
    "shard given/speech shards --deduplicate --validation 0.5 --shard-seconds 2 --max-rejects 1 --engine local",
    f"train nano data.shards=shards output=run {TRAINING} --engine local",
    "report run",
    "tokenize given/clips.jsonl tokens --codec run/codec --max-rejects 1 --engine local",
    "encode given/speech codes.npz --codec run/codec",
    "encode given/speech codes.parquet --codec run/codec",
    "decode codes.npz decoded --codec run/codec",
    "reconstruct given/speech/0.wav again.flac --codec run/codec",
    "evaluate given/speech evaluation --codec run/codec --max-rejects 1 " + " ".join(QUICK),
    "listen listening --reference given/speech --codec run/codec --clips 1 --no-serve",
    "verify tokens --codec run/codec --decode 2 --to listen",
    "export codec run exported",
    "export codes tokens plain --form jsonl --engine local",
    "import codes plain imported-codes --codec run/codec --engine local",
    "export compact tokens compact --engine local",
    "export huggingface compact",
    "export vocabulary run/codec vocabulary --offset 400",
    "export tokenizer given/lm tokenizer --codec run/codec",
    "export language-model given/lm lm-audio --codec run/codec",
    f"export sequences tokens sequences {DOCUMENTS}",
    f"export megatron tokens megatron {DOCUMENTS}",
    "export unitts tokens unitts --engine local",
    f"export chat given/talks.jsonl chat {CHAT}",
    "export unitts tokens audio-files --task audio --style audio-json --engine local",
)


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clips, one of them twice, and a broken one; their texts and others; a checkpoint; a language model."""
    folder = tmp_path_factory.mktemp("given")
    (folder / "student").symlink_to(DATA / "golden" / "student")
    (folder / "speech").mkdir()
    for number, seed in enumerate((0, 1, 1)):
        soundfile.write(folder / "speech" / f"{number}.wav", tone(2.1, 24_000, seed=seed), 24_000)
    (folder / "speech" / "broken.wav").write_text("no audio")
    names = [*(f"speech/{number}.wav" for number in range(3)), "speech/broken.wav"]
    write_lines(folder / "clips.jsonl", [{"audio_filepath": name, "text": "say hello"} for name in names])
    write_lines(folder / "books.jsonl", [{"text": f"page {number}"} for number in range(20)])
    talk = {"messages": [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "world"}]}
    (folder / "talks.jsonl").write_text(json.dumps(talk) + "\n")
    (folder / "chat.jinja").write_text(
        "{% for message in messages %}{% generation %}{{ message.content }}{% endgeneration %}{% endfor %}"
    )
    write_model(folder / "lm", qwen2())
    (folder / "lm" / "LICENSE").write_text("free")
    return folder


def write_lines(path: Path, rows: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def verb_of(command: str) -> str:
    found = re.match(r"(export |import )?\S+", command)
    assert found, command
    return found[0]


def test_all_writing_verbs_are_tested() -> None:
    """All but `inspect` and `status`, which write nothing, and `clean`, which only removes files."""
    verbs = command_names(app) - {"inspect", "status", "clean"}
    forms = {f"export {name}" for name in command_names(export_app)}
    forms |= {f"import {name}" for name in command_names(import_app)}
    assert {verb_of(command) for command in COMMANDS} == verbs | forms


@pytest.mark.parametrize("mask", [0o022, 0o077], ids="{:03o}".format)
def test_files_and_folders_follow_umask(
    mask: int, given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("given").symlink_to(given)
    with umask(mask):
        for command in COMMANDS:
            result = codectok(*command.split())
            assert result.exit_code == 0, (command, result.output)
    Path("given").unlink()
    assert wrong_modes(tmp_path, mask) == {}


def test_workers_of_running_ray_use_umask_of_command(given: Path, tmp_path: Path, ray_session: None) -> None:
    options = ("--shard-seconds", 2, "--max-rejects", 1, "--engine", "ray")
    with umask(0o007):
        result = codectok("shard", given / "speech", tmp_path / "shards", *options)
    assert result.exit_code == 0, result.output
    assert wrong_modes(tmp_path, 0o007) == {}
