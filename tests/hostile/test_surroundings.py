"""Surroundings that fail while a command runs: it ends with one sentence, and the same command completes the output."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import soundfile
from _pytest.mark import ParameterSet

from codectok import Codec
from tests.helpers.audio import tone
from tests.helpers.command_line import one_line
from tests.helpers.evaluation import QUICK
from tests.helpers.exports import write_parts
from tests.helpers.forks import Command, Ended, Forks, forking_process
from tests.helpers.jobs import digests, rejects

RECORD = "_codectok/records/*.json"
N_FILES = 4
Arguments = Callable[[Path], list[object]]


def slow_verbs(*verbs: str) -> list[ParameterSet]:
    """Verbs that are tested with the slow tests only."""
    return [pytest.param(verb, marks=pytest.mark.slow) for verb in verbs]


@pytest.fixture(scope="module")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    with forking_process(tmp_path_factory.mktemp("logs")) as started:
        yield started


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Speech of several units, a codec and a token table."""
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "speech").mkdir()
    for number in range(N_FILES):
        samples = tone(3 + number, 24_000, 200 + 50 * number, seed=number)
        soundfile.write(folder / "speech" / f"{number}.wav", samples, 24_000)
    Codec.from_config("nano", seed=1).save_pretrained(folder / "codec")
    write_parts(folder / "tokens", 30)
    return folder


@pytest.fixture(scope="module")
def commands(inputs: Path) -> dict[str, Arguments]:
    """Arguments of each verb for an output."""
    speech, table, codec = inputs / "speech", inputs / "tokens", inputs / "codec"
    encoder = ["--codec", codec, "--device", "cpu"]
    local = ["--engine", "local", "--no-space-check"]
    parts = ["--offset", 400, "--eos", 0, "--part-megabytes", 0.004, *local]
    return {
        "shard": lambda out: ["shard", speech, out, "--shard-seconds", 3, *local],
        "megatron": lambda out: ["export", "megatron", table, out, *parts],
        "vocabulary": lambda out: ["export", "vocabulary", codec, out],
        "evaluate": lambda out: ["evaluate", speech, out, *encoder, *QUICK, "--max-seconds", 1, "--no-space-check"],
    }


@pytest.fixture(scope="module")
def clean(
    forks: Forks, commands: dict[str, Arguments], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, str]]:
    """Hashes of the output of undisturbed runs."""
    folder = tmp_path_factory.mktemp("clean")
    for verb, arguments in commands.items():
        assert forks.run(arguments(folder / verb)).status == 0
    return {verb: digests(folder / verb) for verb in commands}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def assert_one_sentence(ended: Ended, status: int, *words: str) -> None:
    message = one_line(ended.errors)
    assert ended.status == status, message
    assert "Traceback" not in message
    assert message.count("Error:") == 1, message
    for word in words:
        assert word in message


@pytest.fixture
def completes(
    forks: Forks, commands: dict[str, Arguments], clean: dict[str, dict[str, str]]
) -> Callable[[str, Path], None]:
    """A function that runs the same command again, and compares its output with an undisturbed run."""

    def complete(verb: str, output: Path) -> None:
        again = forks.run(commands[verb](output))
        assert again.status == 0, again.errors
        assert digests(output) == clean[verb]
        assert not [path.name for path in output.parent.iterdir() if path.name.startswith(f".{output.name}")]

    return complete


def started(forks: Forks, commands: dict[str, Arguments], out: Path) -> Command:
    """`shard` that has finished its first unit."""
    command = forks.start(commands["shard"](out))
    command.wait_for(out, RECORD)
    return command


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """A small file system at `folder`; the test is skipped if this process may not mount one."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this process may not mount a small file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("seconds", [3, pytest.param(60, marks=pytest.mark.slow)])
def test_stopped_process_continues(
    seconds: int, forks: Forks, commands: dict[str, Arguments], clean: dict[str, dict[str, str]], out: Path
) -> None:
    command = started(forks, commands, out)
    command.send(signal.SIGSTOP)
    time.sleep(seconds)
    command.send(signal.SIGCONT)
    assert command.wait().status == 0
    assert digests(out) == clean["shard"]


def test_hangup_says_how_to_continue(
    forks: Forks, commands: dict[str, Arguments], out: Path, completes: Callable[[str, Path], None]
) -> None:
    command = started(forks, commands, out)
    command.send(signal.SIGHUP)
    ended = command.wait()
    assert_one_sentence(ended, 130, "Interrupted", "run the same command again")
    completes("shard", out)


def test_nohup_is_respected(
    forks: Forks, commands: dict[str, Arguments], clean: dict[str, dict[str, str]], out: Path
) -> None:
    command = forks.start(commands["shard"](out), "nohup")
    command.wait_for(out, RECORD)
    command.send(signal.SIGHUP)
    assert command.wait().status == 0
    assert digests(out) == clean["shard"]


@pytest.mark.parametrize("verb", ["shard", "vocabulary", *slow_verbs("megatron", "evaluate")])
def test_closed_output_harms_no_file(
    verb: str, forks: Forks, commands: dict[str, Arguments], clean: dict[str, dict[str, str]], out: Path
) -> None:
    ended = forks.run(commands[verb](out), "closed")
    assert (ended.status, ended.output, ended.errors) == (0, "", "")
    assert digests(out) == clean[verb]


def test_closed_descriptors_are_not_given_to_files() -> None:
    """A file that is opened as descriptor 1 would get the text that libraries print."""
    script = "from codectok.cli.main import main; import os, sys; sys.argv = ['codectok', '--version']\n"
    script += "try: main()\nfinally: sys.exit(40 + os.open('/dev/null', os.O_RDONLY))"
    ended = subprocess.run(["sh", "-c", f'exec "{sys.executable}" -c "$0" <&- >&- 2>&-', script], check=False)
    assert ended.returncode > 42


@pytest.mark.parametrize("verb", ["shard", "vocabulary", "evaluate"])
def test_output_without_a_reader(
    verb: str, forks: Forks, commands: dict[str, Arguments], clean: dict[str, dict[str, str]], out: Path
) -> None:
    ended = forks.run(commands[verb](out), "no reader")
    assert ended.status == 1
    assert "Traceback" not in ended.errors
    assert digests(out) == clean[verb], "the work was done, only the summary had no reader"


@pytest.mark.parametrize("verb", ["shard", "vocabulary"])
def test_output_to_a_full_disk(
    verb: str, forks: Forks, commands: dict[str, Arguments], clean: dict[str, dict[str, str]], out: Path
) -> None:
    ended = forks.run(commands[verb](out), "full")
    assert_one_sentence(ended, 1, "No space left", "standard output")
    assert digests(out) == clean[verb]


@pytest.mark.parametrize("verb", ["shard", "vocabulary"])
def test_files_that_may_not_grow(
    verb: str, forks: Forks, commands: dict[str, Arguments], out: Path, completes: Callable[[str, Path], None]
) -> None:
    ended = forks.run(commands[verb](out), "small files")
    assert_one_sentence(ended, 1, "File too large")
    completes(verb, out)


@pytest.mark.parametrize(
    ("verb", "limit", "enough"),
    [
        ("shard", "size=300k", "size=20m"),
        ("shard", "size=20m,nr_inodes=16", "nr_inodes=1000"),
        ("megatron", "size=24k", "size=20m"),
        ("megatron", "size=20m,nr_inodes=12", "nr_inodes=1000"),
        ("vocabulary", "size=20k", "size=20m"),
        ("evaluate", "size=20m,nr_inodes=3", "nr_inodes=1000"),
    ],
)
def test_full_disk(
    verb: str,
    limit: str,
    enough: str,
    forks: Forks,
    commands: dict[str, Arguments],
    tmp_path: Path,
    completes: Callable[[str, Path], None],
) -> None:
    with mounted(tmp_path / "small", limit) as disk:
        ended = forks.run(commands[verb](disk / "out"))
        assert_one_sentence(ended, 1, "No space left")
        subprocess.run(["mount", "-o", f"remount,{enough}", str(disk)], check=True)
        completes(verb, disk / "out")


@pytest.mark.parametrize("verb", ["shard", "vocabulary", *slow_verbs("megatron", "evaluate")])
def test_disk_that_is_read_only(
    verb: str, forks: Forks, commands: dict[str, Arguments], tmp_path: Path, completes: Callable[[str, Path], None]
) -> None:
    with mounted(tmp_path / "disk", "size=20m") as disk:
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        assert_one_sentence(forks.run(commands[verb](disk / "out")), 1, "Read-only file system", str(disk))
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        completes(verb, disk / "out")


def test_disk_that_becomes_read_only(
    forks: Forks, commands: dict[str, Arguments], tmp_path: Path, completes: Callable[[str, Path], None]
) -> None:
    with mounted(tmp_path / "disk", "size=20m") as disk:
        command = started(forks, commands, disk / "out")
        command.send(signal.SIGSTOP)
        # Open files keep a file system writable, but not the next ones.
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=False)
        command.send(signal.SIGCONT)
        ended = command.wait()
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        if ended.status:
            assert_one_sentence(ended, 1, "Read-only file system")
        completes("shard", disk / "out")


def test_output_folder_that_is_removed(
    forks: Forks, commands: dict[str, Arguments], out: Path, completes: Callable[[str, Path], None]
) -> None:
    command = started(forks, commands, out)
    command.send(signal.SIGSTOP)
    shutil.rmtree(out)
    command.send(signal.SIGCONT)
    assert_one_sentence(command.wait(), 1, "removed", str(out))
    completes("shard", out)


def test_output_folder_that_is_replaced_by_a_file(
    forks: Forks, commands: dict[str, Arguments], out: Path, completes: Callable[[str, Path], None]
) -> None:
    command = started(forks, commands, out)
    command.send(signal.SIGSTOP)
    shutil.rmtree(out)
    out.write_text("a file")
    command.send(signal.SIGCONT)
    assert_one_sentence(command.wait(), 1, str(out))
    assert out.read_text() == "a file"
    out.unlink()
    completes("shard", out)


@pytest.mark.parametrize("change", ["truncate", "grow", "remove"])
def test_source_that_changes_is_rejected_alone(
    change: str,
    forks: Forks,
    commands: dict[str, Arguments],
    clean: dict[str, dict[str, str]],
    inputs: Path,
    out: Path,
) -> None:
    source = inputs / "speech" / f"{N_FILES - 1}.wav"
    data, modified = source.read_bytes(), source.stat().st_mtime_ns
    command = started(forks, commands, out)
    command.send(signal.SIGSTOP)
    try:
        if change == "remove":
            source.unlink()
        else:
            source.write_bytes(data[: len(data) // 2] if change == "truncate" else data + data[44:])
        command.send(signal.SIGCONT)
        ended = command.wait()
    finally:
        source.write_bytes(data)
        os.utime(source, ns=(modified, modified))
    assert_one_sentence(ended, 1, "1 of 4 inputs are broken")
    (reject,) = rejects(out)
    assert (reject["source"], reject["reason"]) == (source.name, "changed")
    found = {name: digest for name, digest in digests(out).items() if name.endswith(".tar")}
    assert len(found) == N_FILES - 1
    assert found.items() <= clean["shard"].items()


@pytest.mark.parametrize(
    "environment", [{"TMPDIR": "/nowhere/at/all"}, {"HOME": ""}, {"HOME": "/nowhere/at/all"}, {"TMPDIR": "/proc"}]
)
def test_missing_folders_of_the_user(
    environment: dict[str, str],
    forks: Forks,
    commands: dict[str, Arguments],
    clean: dict[str, dict[str, str]],
    out: Path,
) -> None:
    for verb in ("shard", "evaluate"):
        ended = forks.run(commands[verb](out / verb), environment=environment)
        assert ended.status == 0, ended.errors
        assert digests(out / verb) == clean[verb]
