"""Machines of a cluster that differ, or do not share the output, are refused before the first unit."""

from __future__ import annotations

import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from codectok import Codec
from codectok.errors import CodectokError
from codectok.pipelines.engine.executors import node_checks
from codectok.pipelines.engine.executors.node_checks import PROBES, check_nodes
from codectok.pipelines.engine.executors.node_facts import code_version, difference, node_facts
from codectok.pipelines.engine.progress import Machine
from codectok.sources.source import Source
from codectok.storage import open_storage
from tests.helpers.jobs import shard_job, tokenize_job


def source(path: Path) -> Source:
    path.write_bytes(b"sound")
    return Source("clips", str(path.parent), path.name, "audio", path.stat().st_size, path.stat().st_mtime_ns, None)


def answered(monkeypatch: pytest.MonkeyPatch, **answers: Any) -> None:
    """Let machines answer as they would if each ran the question itself."""

    def ask(question: Any, *arguments: Any) -> dict[str, Any]:
        return {name: question(name, *arguments) if answer is None else answer for name, answer in answers.items()}

    monkeypatch.setattr(node_checks, "_ask_nodes", ask)


def test_equal_machines_are_accepted_and_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answered(monkeypatch, one=None, two=None)
    monkeypatch.setattr(node_checks, "_working_nodes", dict)
    ffmpeg = node_facts().ffmpeg or "no"
    assert check_nodes(open_storage(tmp_path / "out"), [source(tmp_path / "a.wav")], shard_job()) == [
        Machine(name, 0, 0, {"codectok": code_version(), "torch": node_facts().torch, "ffmpeg": ffmpeg})
        for name in ("one", "two")
    ]
    assert not list((tmp_path / "out" / PROBES).iterdir())
    assert node_checks.nodes_without_our_code() == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"code": "0.0.1 (abc)"}, "two: it has codectok 0.0.1 \\(abc\\), and this machine"),
        ({"torch": "1.0, Python 3.7"}, "two: it has torch 1.0, Python 3.7, and this machine"),
        ({"libraries": "soxr 0.1"}, "two: it has soxr 0.1, and this machine numpy .*libsndfile"),
        ({"ffmpeg": None if node_facts().ffmpeg else "6.1"}, "two: .* has an ffmpeg and .* has none"),
    ],
)
def test_machine_that_differs_is_named(
    change: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = open_storage(tmp_path / "out")
    storage.write(f"{PROBES}/two", b"two")
    facts = asdict(replace(node_facts(), **change))
    answered(monkeypatch, one=None, two={"facts": facts, "probe": f"{PROBES}/two"})
    with pytest.raises(CodectokError, match=message) as raised:
        check_nodes(storage, [source(tmp_path / "a.wav")], shard_job())
    assert "one:" not in str(raised.value)
    assert [path.name for path in (tmp_path / "out" / PROBES).iterdir()] == ["two"]


def test_output_that_is_not_shared_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One machine does not see our file; another one's file does not arrive here."""
    sound = source(tmp_path / "a.wav")
    elsewhere = str(tmp_path / "elsewhere")
    found = node_checks._facts_of_node("two", elsewhere, "token", [sound], shard_job())
    assert "it does not see files that this machine writes" in str(found)
    open_storage(elsewhere).write(f"{PROBES}/token/driver", b"token")
    answer = node_checks._facts_of_node("two", elsewhere, "token", [sound], shard_job())
    answered(monkeypatch, two=answer)
    with pytest.raises(CodectokError, match="writes to another place than this machine"):
        check_nodes(open_storage(tmp_path / "out"), [sound], shard_job())


def test_machine_with_another_ffmpeg_is_named() -> None:
    own = replace(node_facts(), ffmpeg="6.1")
    assert difference(own, own) is None
    assert difference(own, replace(own, ffmpeg="5.1")) == "it has ffmpeg 5.1, and this machine 6.1; install the same"


def test_machine_without_a_package_of_the_job_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = shard_job()
    monkeypatch.setattr(type(job.settings), "check_packages", missing_package)
    answered(monkeypatch, one=None)
    with pytest.raises(CodectokError, match="one: speechmos is not installed"):
        check_nodes(open_storage(tmp_path / "out"), [source(tmp_path / "a.wav")], job)


def missing_package(_: object) -> None:
    raise CodectokError("speechmos is not installed.")


def test_output_by_a_relative_path_is_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Machines of a cluster work in other folders."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    storage = open_storage("out")

    def ask(question: Any, *arguments: Any) -> dict[str, Any]:
        monkeypatch.chdir(tmp_path / "elsewhere")
        return {"one": question("one", *arguments)}

    monkeypatch.setattr(node_checks, "_ask_nodes", ask)
    monkeypatch.setattr(node_checks, "_working_nodes", dict)
    assert [machine.name for machine in check_nodes(storage, [source(tmp_path / "a.wav")], shard_job())] == ["one"]


def test_source_that_a_machine_cannot_read_is_named(tmp_path: Path) -> None:
    sound = source(tmp_path / "a.wav")
    storage = open_storage(tmp_path / "out")
    storage.write(f"{PROBES}/token/driver", b"token")
    (tmp_path / "a.wav").unlink()
    assert "it cannot read" in str(node_checks._facts_of_node("two", storage.url, "token", [sound], shard_job()))


def test_code_version_names_version_and_files() -> None:
    assert code_version().startswith("0.")
    assert code_version() == code_version()


def test_machine_with_another_codec_is_named(codec_folder: Path, tmp_path: Path) -> None:
    copied = tmp_path / "codec"
    shutil.copytree(codec_folder, copied)
    job, sound, storage = tokenize_job(copied), source(tmp_path / "a.wav"), open_storage(tmp_path / "out")
    storage.write(f"{PROBES}/token/driver", b"token")
    assert isinstance(node_checks._facts_of_node("two", storage.url, "token", [sound], job), dict)
    Codec.from_config("nano", seed=5).save_pretrained(tmp_path / "other")
    shutil.rmtree(copied)
    found = str(node_checks._facts_of_node("two", storage.url, "token", [sound], job))
    assert str(copied) in found
    (tmp_path / "other").rename(copied)
    found = str(node_checks._facts_of_node("two", storage.url, "token", [sound], job))
    assert f"The codec {copied} has the fingerprint" in found
