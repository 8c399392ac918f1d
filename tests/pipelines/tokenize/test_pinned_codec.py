"""Workers load the commit that the driver found on the Hub."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from codectok import Codec, load_codec
from codectok.pipelines.tokenize.encoder_server import load_codec_of_job
from codectok.pipelines.tokenize.job import TokenizeJob
from codectok.pipelines.tokenize.options import TokenizeOptions
from tests.helpers.codecs import noise
from tests.helpers.hub_server import HubServer
from tests.helpers.transformers_models import save_model


def test_worker_loads_commit_of_driver_after_hub_has_moved(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = hub.add("lab/dac", save_model("dac", tmp_path / "old"))
    expected = load_codec(f"transformers:{tmp_path / 'old'}@2", "cpu").encode(noise(4000), 8000)
    job = TokenizeJob(TokenizeOptions("transformers:lab/dac@2", device="cpu"))
    moved = hub.add("lab/dac", save_model("dac", tmp_path / "new", seed=1))
    hub.requests.clear()

    here = load_codec_of_job(job.settings, job.description, job.device_class)
    assert not hub.requests, "everything of a known commit is in the cache"
    hub.use(monkeypatch, tmp_path / "another machine")
    there = load_codec_of_job(job.settings, job.description, job.device_class)

    assert moved != commit == job.description.revision
    for codec in (here, there):
        assert codec.encoder_only
        assert codec.describe() == job.description
        assert torch.equal(codec.encode(noise(4000), 8000), expected)
    assert TokenizeJob(TokenizeOptions("transformers:lab/dac@2", device="cpu")).description.revision == moved


def test_worker_loads_codec_of_ours_after_hub_has_moved(hub: HubServer, tmp_path: Path) -> None:
    Codec.from_config("nano", seed=1).save_pretrained(tmp_path / "old")
    Codec.from_config("nano", seed=2).save_pretrained(tmp_path / "new")
    commit = hub.add("lab/ours", tmp_path / "old")
    job = TokenizeJob(TokenizeOptions("lab/ours", device="cpu"))
    hub.add("lab/ours", tmp_path / "new")

    codec = load_codec_of_job(job.settings, job.description, job.device_class)

    assert codec.encoder_only
    assert codec.describe() == job.description
    assert codec.describe().revision == commit
    assert load_codec(f"lab/ours#{commit}", "cpu").fingerprint == codec.fingerprint
    assert load_codec("lab/ours", "cpu").fingerprint != codec.fingerprint
