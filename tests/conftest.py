from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest
import soundfile
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # before triton is imported: kernels run on a CPU

from codectok import Codec
from tests.helpers.audio import tone
from tests.helpers.exports import write_parts
from tests.helpers.hub_server import HubServer, hub_server
from tests.helpers.storage import DATA


@pytest.fixture(params=["student", "teacher"])
def golden(request: pytest.FixtureRequest) -> Path:
    """A folder with a reference checkpoint, its input and its outputs."""
    return DATA / "golden" / request.param


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A stand-in Hub that this process uses, with empty caches, in an empty working folder."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    with hub_server() as server:
        server.use(monkeypatch, tmp_path)
        yield server


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """A small local Ray for all tests."""
    import ray

    folder = tempfile.mkdtemp(prefix="ct-ray-")  # short, because paths of sockets are limited
    ray.init(
        address="local",  # another Ray may run on this machine
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=100_000_000,
        _temp_dir=folder,
        _node_ip_address="127.0.0.1",
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    yield
    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """A bucket in a server in this process, on loopback."""
    moto = pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    before = dict(fsspec.config.conf)
    fsspec.config.conf["s3"] = {"key": "k", "secret": "s", "endpoint_url": f"http://{host}:{port}"}
    fsspec.filesystem("s3").mkdir("corpora")
    yield "s3://corpora"
    fsspec.config.conf.clear()
    fsspec.config.conf.update(before)
    server.stop()


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Audio of several formats, rates and lengths, and one file for each kind of damage."""
    root = tmp_path_factory.mktemp("corpus") / "speech"
    (root / "sub folder").mkdir(parents=True)
    for number, (name, seconds, rate) in enumerate(
        [
            ("a.wav", 3.0, 24_000),
            ("b.flac", 12.5, 16_000),
            ("sub folder/c ü.ogg", 25.0, 22_050),
            ("sub folder/d.mp3", 5.0, 44_100),
            ("e.opus", 2.5, 48_000),
            ("short.wav", 0.4, 24_000),
        ]
    ):
        samples = tone(seconds, rate, 200 + 50 * number, seed=number)
        container = {"opus": "OGG"}.get(name.rpartition(".")[2])
        subtype = "OPUS" if container else None
        soundfile.write(root / name, samples, rate, format=container, subtype=subtype)
    stereo = np.stack([tone(4, 24_000), tone(4, 24_000, 500)], axis=1)
    soundfile.write(root / "stereo.wav", stereo, 24_000)
    (root / "notes.txt").write_text("not audio")
    (root / ".hidden.wav").write_text("ignored")
    write_unusable_files(root)
    return root


def write_unusable_files(root: Path) -> None:
    """Write files with names of audio that cannot be used."""
    (root / "text.wav").write_text("this is text")
    (root / "empty.wav").write_bytes(b"")
    soundfile.write(root / "whole.flac", tone(3, 24_000), 24_000)
    data = (root / "whole.flac").read_bytes()
    (root / "whole.flac").rename(root / "truncated.flac")
    (root / "truncated.flac").write_bytes(data[: len(data) // 2])
    samples = tone(3, 24_000)
    samples[0] = np.nan
    soundfile.write(root / "nan.wav", samples, 24_000, subtype="FLOAT")
    soundfile.write(root / "no-samples.wav", samples[:0], 24_000)


@pytest.fixture(scope="session")
def codec_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("codec") / "nano"
    Codec.from_config("nano", seed=1).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_parts(tmp_path_factory.mktemp("tables") / "tokens", 30)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.helpers.tokenizers import save_tokenizer  # other tests start without transformers

    return save_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("texts") / "books.jsonl"
    path.write_text("".join(json.dumps({"text": f"page {n} of a book", "id": f"p{n}"}) + "\n" for n in range(400)))
    return path
