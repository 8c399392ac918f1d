"""Codecs on the Hub: downloaded, converted once, and loaded offline; one sentence for every failure."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from huggingface_hub import constants

from codectok import CheckpointError, Codec, load_codec
from codectok.checkpoints import CheckpointHeader, converted, import_distilcodec
from codectok.checkpoints.hub import download_snapshot
from codectok.loading import absolute_codec_name
from codectok.model.network import CodecNetwork
from tests.helpers.hub_server import HubServer
from tests.helpers.storage import DATA

STUDENT = DATA / "golden" / "student"


@pytest.fixture
def ours(hub: HubServer, codec_folder: Path) -> str:
    """Name of a codec of ours, and a file that is not needed."""
    files = {path.name: path.read_bytes() for path in codec_folder.iterdir()}
    hub.add("lab/ours", {**files, "README.md": b"about it"})
    return "lab/ours"


@pytest.fixture
def distilcodec(hub: HubServer) -> str:
    """Name of a DistilCodec repository with two steps."""
    checkpoint = (STUDENT / "g_00000042").read_bytes()
    config = (STUDENT / "model_config.json").read_bytes()
    hub.add(
        "lab/distil", {"model_config.json": config, "g_00000042": checkpoint, "g_00000007": checkpoint, "m.md": b""}
    )
    return "lab/distil"


def conversions(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache" / "codectok" / "codecs").rglob("model.safetensors"))


def test_codec_on_hub_loads_with_its_commit(hub: HubServer, ours: str, codec_folder: Path) -> None:
    codec, local = load_codec(ours, "cpu"), load_codec(codec_folder, "cpu")
    commit = hub.repositories[ours].commit
    assert codec.fingerprint == local.fingerprint
    assert (codec.describe().revision, local.describe().revision) == (commit, None)
    assert sorted(hub.downloads()) == ["config.json", "model.safetensors"]
    assert load_codec(absolute_codec_name(ours), "cpu").describe() == codec.describe()


def test_new_commit_on_hub_is_loaded(hub: HubServer, ours: str, tmp_path: Path) -> None:
    before = load_codec(ours, "cpu")
    Codec.from_config("nano", seed=2).save_pretrained(tmp_path / "other")
    commit = hub.add(ours, tmp_path / "other")
    after = load_codec(ours, "cpu")
    assert after.describe().revision == commit
    assert after.fingerprint != before.fingerprint


def test_distilcodec_on_hub_is_converted_once(
    hub: HubServer, distilcodec: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "codectok"):
        codec = load_codec(distilcodec, "cpu")
    (message,) = caplog.messages
    assert "steps 7, 42" in message
    assert "newest" in message
    assert codec.fingerprint == Codec.from_distilcodec(STUDENT, device="cpu").fingerprint
    commit = hub.repositories[distilcodec].commit
    assert codec.describe().revision == commit
    assert sorted(hub.downloads()) == ["g_00000042", "model_config.json"]
    (entry,) = conversions(tmp_path)
    assert (entry.parent.parent.name, entry.parent.name) == (commit, "42")
    written, n_downloads = entry.stat().st_mtime_ns, len(hub.downloads())
    assert absolute_codec_name(distilcodec) == str(entry.parent.resolve())
    assert load_codec(entry.parent, "cpu").describe() == codec.describe()
    assert (entry.stat().st_mtime_ns, len(hub.downloads())) == (written, n_downloads)


def test_step_on_hub_is_chosen(hub: HubServer, distilcodec: str, caplog: pytest.LogCaptureFixture) -> None:
    codec = Codec.from_pretrained(f"{distilcodec}@7", "cpu")
    assert "g_00000007" in codec.header.origin
    assert not caplog.messages
    assert sorted(hub.downloads()) == ["g_00000007", "model_config.json"]
    for name, message in (
        (f"{distilcodec}@8", "no step 8; it holds 7, 42"),
        (f"{distilcodec}@new", "@new is not a step"),
    ):
        with pytest.raises(CheckpointError, match=message):
            load_codec(name)


def test_damaged_conversion_is_made_again(hub: HubServer, distilcodec: str, tmp_path: Path) -> None:
    folder = Path(absolute_codec_name(f"{distilcodec}@7"))
    (model,) = conversions(tmp_path)
    data = model.read_bytes()
    damages: dict[str, Callable[[], object]] = {
        "truncated": lambda: model.write_bytes(data[: len(data) // 2]),
        "changed": lambda: model.write_bytes(data[:-1] + bytes([data[-1] ^ 1])),
        "without source": lambda: (folder / "source.json").write_text("{"),
        "without model": model.unlink,
        "left over of a killed process": lambda: folder.rename(folder.with_name(".7.0123abcd.tmp")),
    }
    for damage, do in damages.items():
        do()
        assert absolute_codec_name(f"{distilcodec}@7") == str(folder)
        assert model.read_bytes() == data, damage
    assert not list(folder.parent.glob(".*.tmp"))
    assert hub.downloads().count("g_00000007") == 1


def test_converted_codec_is_read_without_the_lock(
    hub: HubServer, distilcodec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a cache that is read-only."""
    found = Codec.from_pretrained(distilcodec, "cpu")

    def refused(_: Path) -> None:
        raise OSError("Read-only file system")

    monkeypatch.setattr(converted, "_locked", refused)
    assert Codec.from_pretrained(distilcodec, "cpu").fingerprint == found.fingerprint


def test_codec_is_converted_once_at_a_time(hub: HubServer, distilcodec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Path] = []

    def slowly(folder: Path, step: int) -> tuple[CheckpointHeader, CodecNetwork]:
        calls.append(folder)
        time.sleep(0.3)
        return import_distilcodec(folder, step)

    monkeypatch.setattr(converted, "import_distilcodec", slowly)
    with ThreadPoolExecutor(3) as pool:
        names = list(pool.map(absolute_codec_name, [f"{distilcodec}@42"] * 3))
    assert len(set(names)) == len(calls) == 1
    assert load_codec(names[0], "cpu").fingerprint == Codec.from_distilcodec(STUDENT, device="cpu").fingerprint


def test_loaded_codecs_load_offline(
    hub: HubServer, ours: str, distilcodec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    online = [load_codec(name, "cpu").describe() for name in (ours, distilcodec)]
    n_requests = len(hub.requests)
    # A converted checkpoint needs its original no more.
    for blob in (tmp_path / "huggingface").rglob("g_*"):
        blob.unlink()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert [load_codec(name, "cpu").describe() for name in (ours, distilcodec)] == online
    for name, message in (("lab/never", "HF_HUB_OFFLINE is set, and it is not in the local cache"),
                          (f"{distilcodec}@7", "only partly in the local cache: g_00000007")):  # fmt: skip
        with pytest.raises(CheckpointError, match=message):
            load_codec(name)
    assert len(hub.requests) == n_requests


def test_unreachable_hub_is_said(
    hub: HubServer, ours: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = load_codec(ours, "cpu").describe()
    monkeypatch.setattr("codectok.checkpoints.hub.TIMEOUT_SECONDS", 0.3)
    for failure, word in (("status", "status 503"), ("silent", "ReadTimeout"), ("gone", "ConnectError")):
        hub.status, hub.silent = 503 if failure == "status" else None, failure == "silent"
        if failure == "gone":
            hub.silent = False
            monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
        began = time.monotonic()
        caplog.clear()
        assert load_codec(ours, "cpu").describe() == before
        (message,) = (record.getMessage() for record in caplog.records if record.name.startswith("codectok"))
        assert word in message
        assert "copy in the local cache" in message
        with pytest.raises(CheckpointError, match=f"{word}.*, and it is not in the local cache"):
            load_codec("lab/never")
        assert time.monotonic() - began < 60


def test_hub_refusals_are_one_sentence(hub: HubServer, ours: str) -> None:
    hub.add("lab/gated", hub.repositories[ours].files, gated=True)
    hub.add("lab/other", {"README.md": b"", "weights.bin": b""})
    hub.add("lab/half", {"config.json": b'{"format": "codectok.codec"}'})
    hub.add("lab/mimi", {"config.json": b'{"model_type": "mimi"}', "model.safetensors": b"large"})
    hub.add("lab/torch", {"config.json": b'{"model_type": "dac"}', "pytorch_model.bin": b"large"})
    for name, words in {
        "lab/gated": "is gated",
        "lab/none": "no such name on the Hugging Face Hub",
        "lab/a--b": "forbids this name",
        "lab/other": "is not a codec",
        "lab/half": "is not a codec",
        "lab/mimi": "name it transformers:lab/mimi",
        "lab/torch": "model of transformers .dac.",
        f"{ours}@5": "no steps to choose from",
    }.items():
        with pytest.raises(CheckpointError, match=words) as raised:
            load_codec(name)
        assert str(raised.value).count(". ") == 0
    assert "model.safetensors" not in hub.downloads()
    for status, words in ((401, "refuses access"), (403, "refuses access"), (429, "fails to serve")):
        hub.status = status
        with pytest.raises(CheckpointError, match=words):
            load_codec("lab/unknown")


def test_folder_of_same_name_goes_before_hub(hub: HubServer, ours: str, codec_folder: Path) -> None:
    shutil.copytree(codec_folder, ours)
    assert load_codec(ours, "cpu").describe().revision is None
    with pytest.raises(CheckpointError, match="no codec folder lab/typo"):
        load_codec("lab/typo")
    assert not hub.requests


def test_snapshot_holds_matching_files(hub: HubServer) -> None:
    files = {"config.json": b"{}", "a.safetensors": b"a", "part/b.safetensors": b"b", "pytorch_model.bin": b"c"}
    commit = hub.add("lab/model", files)
    folder, found = download_snapshot("lab/model", ["*.json", "*.safetensors"])
    assert found == commit
    assert {str(path.relative_to(folder)) for path in folder.rglob("*.*")} == set(files) - {"pytorch_model.bin"}
    assert (folder / "part" / "b.safetensors").read_bytes() == b"b"
    assert download_snapshot("lab/model", ["config.json"], revision=commit) == (folder, commit)
    with pytest.raises(CheckpointError, match="no revision v2"):
        download_snapshot("lab/model", ["*"], revision="v2")
    with pytest.raises(CheckpointError, match=r"holds no \*\.onnx"):
        download_snapshot("lab/model", ["*.onnx"])


@pytest.mark.slow
def test_two_commands_load_from_hub_at_once(hub: HubServer, distilcodec: str, tmp_path: Path) -> None:
    """The environment alone says which Hub: `HF_ENDPOINT`, read when the process starts."""

    def inspect(**more: str) -> subprocess.Popen[str]:
        environment = hub.environment(tmp_path, PYTHONPATH=str(Path(__file__).parents[3]), COLUMNS="200", **more)
        command = [sys.executable, "-m", "codectok", "inspect", distilcodec]
        return subprocess.Popen(
            command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    online = [process.communicate() for process in [inspect(), inspect()]]
    for shown, errors in online:
        assert hub.repositories[distilcodec].commit in shown, errors
        assert len([line for line in errors.splitlines() if "newest" in line]) == 1
    assert len(conversions(tmp_path)) == 1
    offline, _ = inspect(HF_HUB_OFFLINE="1").communicate()
    assert offline == online[0][0] == online[1][0]
