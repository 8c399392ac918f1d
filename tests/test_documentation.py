"""Every command and every Python snippet in README and docs runs, in the order in which they stand."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile

from .codectok.exports.language_models import qwen2, write_model
from .codectok.exports.tokenizers import save_tokenizer
from .conftest import DATA, tone

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SNIPPET = re.compile(r"```(console|python)\n(.*?)```", re.DOTALL)
# A file that a page shows whole, after its name.
FILE = re.compile(r"This is `(\S+)`:\n\n```\w+\n(.*?)```", re.DOTALL)
# Set-up commands, which tests can't run inside themselves: `make test` would start this very test.
SET_UP = ("make ", "pip ")
FASTER = {
    "train": ["steps=2", "data.batch_size=2", "discriminators.start_step=1"],
    "shard": ["--engine", "local"],
    "tokenize": ["--engine", "local"],
    **{f"export {form}": ["--engine", "local"] for form in ("sequences", "megatron", "unitts", "compact")},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder as the pages assume it: some recordings and what is known of them, a DistilCodec checkpoint,
    a large language model's tokenizer, and a whole tiny one."""
    folder = tmp_path_factory.mktemp("pages")
    (folder / "recordings").mkdir()
    soundfile.write(folder / "recordings" / "speech.wav", tone(12, 44_100), 44_100)
    soundfile.write(folder / "recordings" / "music.flac", tone(15, 48_000, 800), 48_000)
    shutil.copytree(DATA / "golden" / "student", folder / "DistilCodec-v1.0")
    (folder / "DistilCodec-v1.0" / "g_00000042").rename(folder / "DistilCodec-v1.0" / "g_00204000")
    transcripts = [
        {"audio_filepath": f"recordings/{name}", "text": f"{name} is heard", "speaker": "ann", "language": "en"}
        for name in ("speech.wav", "music.flac")
    ]
    write_lines(folder / "transcribed.jsonl", transcripts)
    write_lines(folder / "books.jsonl", [{"text": f"This is page {n} of a book."} for n in range(100)])
    save_tokenizer(folder / "qwen")
    (folder / "qwen" / "config.json").write_text(json.dumps({"model_type": "qwen2", "vocab_size": 152_064}))
    write_model(folder / "model", qwen2(hidden_size=72))  # the width of the checkpoint's codebook
    return folder


def write_lines(path: Path, rows: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def snippets(page: Path) -> list[tuple[str, str]]:
    return SNIPPET.findall(page.read_text(encoding="utf-8"))


def run(arguments: list[str], folder: Path) -> None:
    result = subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True)
    assert result.returncode == 0, f"{arguments}\n{result.stdout}\n{result.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_everything_on_the_page_runs(page: Path, folder: Path) -> None:
    found = snippets(page)
    assert found, page
    if page.name != "README.md":
        # Other pages go on where README's commands have led; their own outputs are made anew.
        for output in ("codec",):
            shutil.rmtree(folder / output, ignore_errors=True)
    for name, content in FILE.findall(page.read_text(encoding="utf-8")):
        (folder / name).write_text(content)
    for language, text in found:
        if language == "python":
            run(["-c", text], folder)
            continue
        for line in text.splitlines():
            command = line.split("#")[0].strip()
            if not command.startswith(SET_UP):
                program, verb, *rest = shlex.split(command)
                assert program == "codectok"
                faster = FASTER.get(f"export {rest[0]}" if verb == "export" else verb, [])
                run(["-m", "codectok", verb, *rest, *faster], folder)


def test_the_two_commands_are_targets_of_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in ("demo", "test", "lint", "bench"):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)
    commands = [line.split("#")[0].strip() for line in (ROOT / "README.md").read_text().splitlines()]
    assert {"make demo", "make test"} <= set(commands)
