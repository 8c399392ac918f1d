"""Codecs of other makers' packages, by small random models; skipped where a package is not installed."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from codectok import AudioError, CodectokError, load_codec
from codectok.codecs.packages.snac import Flattening
from codectok.errors import CheckpointError
from codectok.loading import absolute_codec_name
from codectok.tokens.table import TableMetadata
from tests.helpers.hub_server import hub_server
from tests.helpers.packaged_codecs import CONFIGS, WEIGHTS, codes_of, package_of, save_model, shrink_decoder

FACTS = {
    # sample rate, samples per frame, frames per second, codebooks
    "bigcodec": (16_000, 200, 80.0, 1),
    "speechtokenizer": (16_000, 320, 50.0, 8),
    "snac": (24_000, 2048, 24_000 / 2048, 7),
    "snac with attention": (44_100, 4096, 44_100 / 4096, 15),
}


@pytest.fixture(scope="module", params=CONFIGS)
def kind(request: pytest.FixtureRequest) -> Iterator[str]:
    name: str = request.param
    pytest.importorskip(package_of(name), reason=f"the package {package_of(name)} is not installed")
    with pytest.MonkeyPatch.context() as patch:
        if name == "bigcodec":
            shrink_decoder(patch)
        yield name


@pytest.fixture(scope="module")
def saved(kind: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Any]:
    """Name of a codec, and its model."""
    folder = tmp_path_factory.mktemp("codecs") / "model"
    model = save_model(kind, folder)
    return f"{package_of(kind)}:{folder}", model


def clip(n_samples: int, seed: int = 0) -> torch.Tensor:
    return 0.3 * torch.randn(n_samples, generator=torch.Generator().manual_seed(seed))


def test_codes_equal_those_of_the_package(kind: str, saved: tuple[str, Any]) -> None:
    name, model = saved
    codec = load_codec(name, "cpu")
    lengths = [codec.min_samples, 5_001, 4 * codec.frame_size, 4 * codec.frame_size + 1]  # type: ignore[attr-defined]
    clips = [clip(n, seed) for seed, n in enumerate(lengths)]
    for samples, codes in zip(clips, codec.encode_batch(clips, codec.sample_rate), strict=True):
        levels = codes_of(kind, model, samples)
        if package_of(kind) != "snac":
            assert torch.equal(codes, torch.stack(levels, -1))
            continue
        strides = CONFIGS[kind]["vq_strides"]
        assert [len(level) for level in levels] == [len(codes) * strides[0] // stride for stride in strides]
        for frame, slots in enumerate(codes.tolist()):
            counts = [strides[0] // stride for stride in strides]
            own = [level.tolist()[frame * n : frame * n + n] for level, n in zip(levels, counts, strict=True)]
            if len(strides) == 3:
                (a,), (b, c), (d, e, f, g) = own
                assert slots == [a, b, d, e, c, f, g]
            assert sorted(slots) == sorted(code for level in own for code in level)
    assert len({tuple(frame) for frame in codes.tolist()}) > 3


@pytest.mark.parametrize("batch_seconds", [0.0, 1.0])
def test_codes_depend_on_the_clip_alone(saved: tuple[str, Any], batch_seconds: float) -> None:
    codec = load_codec(saved[0], "cpu", batch_seconds=batch_seconds)
    clips = [clip(n, seed) for seed, n in enumerate((6_000, 4_001, 6_000, 6_000, 6_000))]
    alone = [codec.encode(samples, codec.sample_rate) for samples in clips]
    for codes, own in zip(codec.encode_batch(clips[::-1], codec.sample_rate), alone[::-1], strict=True):
        assert torch.equal(codes, own)


def test_facts_of_packaged_codecs(kind: str, saved: tuple[str, Any]) -> None:
    codec = load_codec(saved[0], "cpu")
    assert (codec.sample_rate, codec.frame_size, codec.frame_rate, codec.n_codebooks) == FACTS[kind]
    described = TableMetadata.of(codec.describe())
    assert (described.codec_name, described.codec_type, described.revision) == ("model", package_of(kind), None)
    assert (described.dtype, described.tf32, described.device) == ("float32", False, "cpu")
    assert described.weights_sha256 and described.torch == torch.__version__
    assert codec.codebooks.shape == (codec.n_codebooks, codec.codebook_size, codec.codebooks.shape[2])
    expected = described.n_frames(5_000)
    assert expected in (None, len(codec.encode(clip(5_000), codec.sample_rate)))


def test_decoding_is_repeatable_and_as_long_as_the_clip(kind: str, saved: tuple[str, Any]) -> None:
    """Decoders of SNAC add noise."""
    name, model = saved
    codec = load_codec(name, "cpu")
    n_samples = 4 * codec.frame_size - 7
    samples = clip(n_samples)
    decoded = codec.reconstruct(samples, codec.sample_rate)
    state = torch.get_rng_state()
    assert torch.equal(decoded, codec.reconstruct(samples, codec.sample_rate))
    assert torch.equal(state, torch.get_rng_state())
    assert 0 <= n_samples - len(decoded) < codec.frame_size
    assert torch.isfinite(decoded).all()
    if kind == "bigcodec" or kind == "speechtokenizer":
        with torch.inference_mode():
            own = model.decode(model.encode(samples[None, None]))[0, 0, :n_samples]
        torch.testing.assert_close(decoded, own)


def test_short_clips_are_rejects(saved: tuple[str, Any]) -> None:
    codec = load_codec(saved[0], "cpu")
    shortest: int = codec.min_samples  # type: ignore[attr-defined]
    assert shortest < codec.frame_size
    assert len(codec.encode(clip(shortest), codec.sample_rate)) >= 1
    if shortest > 1:
        with pytest.raises(AudioError, match="needs"):
            codec.encode(clip(shortest - 1), codec.sample_rate)


def test_fingerprint_follows_weights_and_configuration(kind: str, saved: tuple[str, Any], tmp_path: Path) -> None:
    fingerprint = load_codec(saved[0], "cpu").fingerprint
    save_model(kind, tmp_path / "same")
    save_model(kind, tmp_path / "other", seed=1)
    package = package_of(kind)
    assert load_codec(f"{package}:{tmp_path / 'same'}", "cpu").fingerprint == fingerprint
    weights = tmp_path / "same" / WEIGHTS[package]
    assert load_codec(f"{package}:{weights}", "cpu").fingerprint == fingerprint
    assert load_codec(f"{package}:{tmp_path / 'other'}", "cpu").fingerprint != fingerprint


def test_unusable_models_are_refused_in_one_sentence(kind: str, tmp_path: Path) -> None:
    package, folder = package_of(kind), tmp_path / "model"
    with pytest.raises(CheckpointError, match="There is no codec folder"):
        load_codec(f"{package}:{folder}", "cpu")
    folder.mkdir()
    with pytest.raises(CheckpointError, match="holds no weights"):
        load_codec(f"{package}:{folder}", "cpu")
    weights = folder / WEIGHTS[package]
    weights.write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match=r"config.json is missing"):
        load_codec(f"{package}:{folder}", "cpu")
    (folder / "config.json").write_text(json.dumps({"other": 1}))
    with pytest.raises(CheckpointError, match="configuration of model is not valid"):
        load_codec(f"{package}:{folder}", "cpu")
    (folder / "config.json").write_text(json.dumps(CONFIGS[kind]))
    with pytest.raises(CheckpointError, match="does not hold weights alone"):
        load_codec(f"{package}:{folder}", "cpu")
    with pytest.raises(CodectokError, match="float32"):
        load_codec(f"{package}:{folder}", "cpu", "bfloat16")


@pytest.mark.parametrize("within", ["", "/a/b"])
def test_model_on_hub_loads_with_its_commit(
    kind: str, saved: tuple[str, Any], within: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package, _, folder = saved[0].partition(":")
    files = {f"{within}/{path.name}".lstrip("/"): path.read_bytes() for path in Path(folder).iterdir()}
    monkeypatch.chdir(tmp_path)
    with hub_server() as server:
        server.use(monkeypatch, tmp_path)
        commit = server.add("lab/model", {**files, "more.bin": b"", f"{within}/README.md".lstrip("/"): b""})
        codec = load_codec(f"{package}:lab/model{within}", "cpu")
        assert len(server.downloads()) == 2
        with pytest.raises(CheckpointError, match="no such name on the Hugging Face Hub"):
            load_codec(f"{package}:lab/other", "cpu")
        with pytest.raises(CheckpointError, match="holds no"):
            load_codec(f"{package}:lab/model/other", "cpu")
        pinned = absolute_codec_name(f"{package}:lab/model{within}")
        server.add("lab/model", {"config.json": b"{}"})
        assert load_codec(pinned, "cpu").describe() == codec.describe()
    assert (codec.describe().revision, codec.name) == (commit, f"lab/model{within}")
    assert codec.fingerprint == load_codec(saved[0], "cpu").fingerprint


class _Code:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("executed"),)


@pytest.mark.parametrize("kind", ["speechtokenizer", "snac"])
def test_weights_run_no_code(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(kind)
    monkeypatch.chdir(tmp_path)
    save_model(kind, tmp_path / "model")
    path = tmp_path / "model" / WEIGHTS[kind]
    for save in (lambda: path.write_bytes(pickle.dumps(_Code())), lambda: torch.save({"a": _Code()}, path)):
        save()
        with pytest.raises(CheckpointError, match="does not hold weights alone"):
            load_codec(f"{kind}:model", "cpu")
        assert not (tmp_path / "executed").exists()


def test_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "snac", None)
    (tmp_path / "config.json").write_text(json.dumps(CONFIGS["snac"]))
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(CheckpointError, match=r"package snac .*|codectok\[snac\]"):
        load_codec(f"snac:{tmp_path}", "cpu")


@pytest.mark.parametrize("strides", [[1], [2, 1], [4, 2, 1], [8, 4, 2, 1], [6, 3, 1], [4, 4, 2]])
def test_flattening_is_undone_exactly(strides: list[int]) -> None:
    flattening = Flattening(strides)
    generator = np.random.default_rng(0)
    levels = [torch.from_numpy(generator.integers(99, size=(2, 5 * n))) for n in flattening.counts]
    flat = flattening.flatten(levels)
    assert flat.shape == (2, 5, sum(flattening.counts))
    for before, after in zip(levels, flattening.levels_of(flat), strict=True):
        assert torch.equal(before, after)


def test_flattening_of_three_levels() -> None:
    assert Flattening([4, 2, 1]).levels == [0, 1, 2, 2, 1, 2, 2]
    for strides in ([], [3, 2], [1, 2], [0]):
        with pytest.raises(ValueError, match="do not share frames"):
            Flattening(strides)
