"""Every command and every Python snippet in README and docs runs, in the order in which they stand."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from codectok.tokens.reader import open_table
from codectok.tokens.vocabulary import Vocabulary
from tests.helpers.audio import tone
from tests.helpers.chat import save_chat_tokenizer
from tests.helpers.forks import Forks, forking_process
from tests.helpers.language_models import qwen2, write_model
from tests.helpers.megatron import read_indexed
from tests.helpers.packages import write_distribution
from tests.helpers.storage import DATA
from tests.helpers.tokenizers import save_tokenizer

ROOT = Path(__file__).parents[1]
WITHOUT_COMMANDS = {"architecture.md", "glossary.md", "index.md"}
PAGES = [
    ROOT / "README.md",
    *(page for page in sorted((ROOT / "docs").glob("*.md")) if page.name not in WITHOUT_COMMANDS),
]
SNIPPET = re.compile(r"```(console|python)\n(.*?)```", re.DOTALL)
# A file that a page shows whole, after its name.
FILE = re.compile(r"This is `(\S+)`:\n\n```\w+\n(.*?)```", re.DOTALL)
# Set-up commands, which tests can't run inside themselves: `make test` would start this very test.
SET_UP = ("make ", "pip ")
FASTER = {
    "train": ["steps=2", "data.batch_size=2", "discriminators.start_step=1"],
    "shard": ["--engine", "local"],
    "tokenize": ["--engine", "local"],
    "import": ["--engine", "local"],
    "listen": ["--no-serve"],
    "evaluate": ["--engine", "local", "--metrics", "mel,si_sdr"],
    **{f"export {form}": ["--engine", "local"] for form in ("sequences", "megatron", "unitts", "chat", "compact")},
    "export codes": ["--engine", "local"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder as the pages assume it: recordings and transcripts, a DistilCodec checkpoint, the tokenizer of
    a large language model, and a complete tiny model."""
    folder = tmp_path_factory.mktemp("pages")
    (folder / "recordings").mkdir()
    soundfile.write(folder / "recordings" / "speech.wav", tone(12, 44_100), 44_100)
    soundfile.write(folder / "recordings" / "music.flac", tone(15, 48_000, 800), 48_000)
    shutil.copytree(DATA / "golden" / "student", folder / "DistilCodec-v1.0")
    (folder / "DistilCodec-v1.0" / "g_00000042").rename(folder / "DistilCodec-v1.0" / "g_00204000")
    transcripts = [
        {"audio_filepath": f"recordings/{name}", "text": f"{name} is read", "speaker": "ann", "language": "en"}
        for name in ("speech.wav", "music.flac")
    ]
    write_lines(folder / "transcribed.jsonl", transcripts)
    write_lines(folder / "books.jsonl", [{"text": f"This is page {n} of a book."} for n in range(100)])
    save_tokenizer(folder / "qwen")
    (folder / "qwen" / "config.json").write_text(json.dumps({"model_type": "qwen2", "vocab_size": 152_064}))
    save_chat_tokenizer(folder / "qwen-instruct", "chatml")
    shutil.copy(folder / "qwen" / "config.json", folder / "qwen-instruct")
    write_model(folder / "model", qwen2(hidden_size=72))  # the width of the checkpoint's codebook
    return folder


def write_lines(path: Path, rows: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def snippets(page: Path) -> list[tuple[str, str]]:
    return SNIPPET.findall(page.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    with forking_process(tmp_path_factory.mktemp("logs"), everything=True) as forks:
        yield forks


def run(forks: Forks, arguments: list[str], folder: Path) -> None:
    ended = forks.run_in(folder, arguments)
    assert ended.status == 0, f"{arguments}\n{ended.output}\n{ended.errors}"


@pytest.fixture
def long_recording(request: pytest.FixtureRequest, folder: Path) -> Iterator[None]:
    """A recording of three minutes, for the page about long recordings."""
    path = folder / "recordings" / "audiobook.flac"
    if request.getfixturevalue("page").name == "exports.md":
        soundfile.write(path, tone(180, 24_000, 500), 24_000)
    yield
    path.unlink(missing_ok=True)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_documentation_page_runs(page: Path, folder: Path, forks: Forks, long_recording: None) -> None:
    found = snippets(page)
    assert found, page
    if page.name != "README.md":
        # Other pages continue with the outputs of README's commands; pages write their outputs again.
        for output in ("codec",):
            shutil.rmtree(folder / output, ignore_errors=True)
    files = dict(FILE.findall(page.read_text(encoding="utf-8")))
    for name, content in files.items():
        (folder / name).write_text(content)
        if name == "pyproject.toml":
            write_distribution(folder)
    for language, text in found:
        if text in files.values():
            continue
        if language == "python":
            run(forks, ["-c", text], folder)
            continue
        for line in text.splitlines():
            command = line.split("#")[0].strip()
            if not command.startswith(SET_UP):
                program, verb, *rest = shlex.split(command)
                assert program == "codectok"
                faster = FASTER.get(f"export {rest[0]}" if verb == "export" else verb, [])
                run(forks, ["-m", "codectok", verb, *rest, *faster], folder)
    if page.name == "exports.md":
        check_exports(folder)


def check_exports(folder: Path) -> None:
    """Check the ids and documents that the page promises."""
    audio, speech = (open_table(folder / "pretraining" / name) for name in ("audio", "speech"))
    vocabulary = Vocabulary.for_codec(audio.metadata, offset := 152_064)
    begin, end, ends = vocabulary.id_of("<|beginofaudio|>"), vocabulary.id_of("<|endofaudio|>"), 0
    assert json.loads((folder / "vocabulary" / "vocabulary.json").read_text())["offset"] == offset
    long = [row for row in audio if row.source == "audiobook.flac"]
    assert len(long) >= 6
    assert sum(row.duration for row in long) == pytest.approx(180)
    parts = sorted((folder / "pretraining" / "megatron").glob("*.idx"))
    written = b"".join(
        np.asarray(ids, "<i4").tobytes() for part in parts for ids in read_indexed(part.with_suffix("")).sequences
    )
    for row in audio:
        document = np.array([begin, *offset + row.codes[:, 0], end, ends], "<i4")
        assert document.tobytes() in written, row.id
    names = {row.id for row in speech}
    for output in ("songs", "packed"):
        made = [row for path in (folder / output).glob("*.parquet") for row in pq.read_table(path).to_pylist()]
        assert sorted(name for row in made for name in row["ids"]) == sorted(names)
        assert [sum(row["lengths"]) for row in made] == [len(row["input_ids"]) for row in made]
        for row in made:
            assert row["input_ids"].count(begin) == row["input_ids"].count(ends) == len(row["ids"])
    assert max(len(row["input_ids"]) for row in made) <= 2048
    dialogues = [row for path in (folder / "unitts").glob("*.parquet") for row in pq.read_table(path).to_pylist()]
    assert {json.loads(row["other_info"])["id"] for row in dialogues} == names
    assert len(list((folder / "unitts-audio").rglob("*.audio"))) == len(audio)


def test_readme_commands_are_make_targets() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in ("demo", "test", "lint", "bench"):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)
    commands = [line.split("#")[0].strip() for line in (ROOT / "README.md").read_text().splitlines()]
    assert {"make demo", "make test"} <= set(commands)
