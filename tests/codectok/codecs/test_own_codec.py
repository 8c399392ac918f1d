"""A codec of another package, found by its entry point; the code is that of the documentation page."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from codectok import CheckpointError, CodectokError, WholeClipCodec, load_codec, open_table
from codectok.loading import absolute_codec_name
from codectok.tokens.codes_file import read_codes
from tests.helpers.audio import tone
from tests.helpers.command_line import assert_refused, codectok
from tests.helpers.jobs import rejects
from tests.helpers.packages import write_distribution, write_metadata

PAGE = Path(__file__).parents[3] / "docs" / "codecs.md"
FILE = re.compile(r"This is `(\S+)`:\n\n```\w+\n(.*?)```", re.DOTALL)
MODULES = ("frames", "odd")


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of installed packages, with the one of the page."""
    folder = tmp_path / "packages"
    folder.mkdir()
    for name, text in FILE.findall(PAGE.read_text(encoding="utf-8")):
        (folder / name).write_text(text)
    write_distribution(folder)
    monkeypatch.syspath_prepend(folder)
    yield folder
    for module in MODULES:
        sys.modules.pop(module, None)


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    folder = tmp_path / "recordings"
    folder.mkdir()
    for number, seconds in enumerate((1.0, 0.5, 1.0, 0.013)):
        soundfile.write(folder / f"{number}.wav", tone(seconds, 16_000, 200 + 90 * number), 16_000)
    return folder


def add_package(packages: Path, text: str, name: str = "odd", target: str = "odd:load") -> None:
    """Install a package with the scheme `odd`."""
    (packages / "odd.py").write_text(f"from frames import FrameCodec\nimport torch\nimport codectok\n{text}")
    write_metadata(packages, name, {"codectok.codecs": {"odd": target}})


def add_codec(packages: Path, body: str, attributes: str = "") -> None:
    """Install a package with the scheme `odd` whose `encode_samples` has this body."""
    add_package(
        packages,
        f"class Odd(FrameCodec):\n {attributes or 'pass'}\n def encode_samples(self, samples):\n  {body}\n"
        "def load(name, **options): return Odd(1, **options)\n",
    )


def test_own_codec_fits_in_forty_lines(packages: Path) -> None:
    assert len((packages / "frames.py").read_text().splitlines()) <= 40


def test_own_codec_works_with_every_command(packages: Path, recordings: Path, tmp_path: Path) -> None:
    table, codes = tmp_path / "table", tmp_path / "codes.npz"
    for command in (
        ["encode", recordings, codes],
        ["decode", codes, tmp_path / "decoded"],
        ["tokenize", recordings, table, "--engine", "local", "--batch-seconds", 2],
        ["verify", table, "--reencode", 4, "--decode", 2, "--to", tmp_path / "listen"],
        ["reconstruct", recordings / "0.wav", tmp_path / "again.wav"],
    ):
        result = codectok(*command, "--codec", "frames:7")
        assert result.exit_code == 0, result.output
    codec = load_codec("frames:7")
    assert (codec.name, codec.n_codebooks) == ("frames", 1)
    encoded = dict(read_codes(codes))
    rows = {row.id: row for row in open_table(table)}
    assert len(rows) == 4
    assert rows.keys() == encoded.keys()
    for name, row in rows.items():
        samples, rate = soundfile.read(recordings / row.source, dtype="float32")
        alone = codec.encode(samples, rate).numpy()
        np.testing.assert_array_equal(row.codes, alone)
        np.testing.assert_array_equal(encoded[name], alone)
    assert open_table(table).metadata.codec_type == "frames"
    assert soundfile.info(tmp_path / "again.wav").frames == 16_000
    assert_refused(codectok("decode", codes, tmp_path / "other", "--codec", "frames:8"), "another codec")
    shown = codectok("inspect", "frames:7")
    assert "16,000 Hz" in shown.output


def test_unusable_packages_are_one_sentence(packages: Path, tmp_path: Path) -> None:
    for name, message in (("nothing:x", "no scheme of codecs nothing; known are .*frames, .*transformers"),
                          ("frames:seven", "frames:seven cannot be loaded: ValueError")):  # fmt: skip
        with pytest.raises(CheckpointError, match=message):
            load_codec(name)
    for text, message in (
        ("raise KeyError('gone')", "cannot be imported .odd:load.: KeyError"),
        ("x = 1", "cannot be imported .odd:load.: AttributeError"),
        ("import no_such_module", "cannot be imported .*no_such_module"),
        ("load = 5", "odd:x cannot be loaded: TypeError"),
        ("def load(name, **options): return torch.nn.Linear(2, 2)", "returned a Linear for x, not an AudioCodec"),
        ("class Odd(FrameCodec): frame_size = 0\ndef load(name, **o): return Odd(1, **o)", "ZeroDivisionError"),
        ("class Odd(FrameCodec): codebook_size = 1\ndef load(name, **o): return Odd(1, **o)", "odd:x cannot be loaded"),
        ("def load(name, **o): raise codectok.InputError('No GPU.')", "No GPU"),
    ):
        add_package(packages, text)
        sys.modules.pop("odd", None)
        with pytest.raises(CodectokError, match=message) as raised:
            load_codec("odd:x", device="cpu")
        assert "\n" not in str(raised.value)
    write_metadata(packages, "rival", {"codectok.codecs": {"frames": "rival:load"}})
    with pytest.raises(CheckpointError, match="frames, rival"):
        load_codec("frames:7")


def test_names_of_own_codecs_become_absolute(packages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights@2").mkdir()
    (tmp_path / "mine").mkdir()
    assert absolute_codec_name("frames:7") == "frames:7"
    assert absolute_codec_name("frames:weights@2") == f"frames:{tmp_path / 'weights@2'}"
    assert absolute_codec_name("frames:mine@3") == f"frames:{tmp_path / 'mine'}@3"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return super().encode_samples(samples)[:, 1:]", r"of shape \[1, 49, 1\] for 16000 samples"),
        ("return super().encode_samples(samples)[0]", "expected are integers of shape"),
        ("return super().encode_samples(samples).float()", "torch.float32"),
        ("return super().encode_samples(samples).numpy()", "a ndarray"),
        ("return super().encode_samples(samples) + 256", "codes from 0 to 255"),
        ("return super().encode_samples(samples).expand(-1, -1, 2)", r"\[1, 50, 2\]"),
    ],
)
def test_faulty_codec_ends_command_with_its_name(
    packages: Path, tmp_path: Path, recordings: Path, body: str, message: str
) -> None:
    add_codec(packages, body)
    samples = torch.from_numpy(tone(1.0, 16_000))
    with pytest.raises(CodectokError, match=message):
        load_codec("odd:x", "cpu").encode(samples, 16_000)
    result = codectok(
        "tokenize", recordings, tmp_path / "out", "--codec", "odd:x", "--engine", "local", "--device", "cpu"
    )
    assert_refused(result, "The codec frames", code=1)


def test_exception_of_codec_costs_one_clip(packages: Path, recordings: Path, tmp_path: Path) -> None:
    first = next(iter(sorted(recordings.iterdir())))
    length = soundfile.info(first).frames
    add_codec(
        packages,
        f"if samples.shape[1] == {length}: raise ValueError('no luck')\n  return super().encode_samples(samples)",
    )
    out, options = tmp_path / "out", ["--engine", "local", "--device", "cpu", "--max-rejects", 1]
    result = codectok("tokenize", recordings, out, "--codec", "odd:x", *options)
    assert result.exit_code == 0, result.output
    lost = [reject for reject in rejects(out) if reject["reason"] == "unexpected_error"]
    assert first.name in [reject["source"] for reject in lost]
    for reject in lost:
        assert re.search(r"The codec frames failed to encode \d+ samples: ValueError .no luck.", str(reject["message"]))
    assert len(open_table(out)) == len(list(recordings.iterdir())) - len(lost) > 0
    again = codectok("tokenize", recordings, tmp_path / "strict", "--codec", "odd:x", *options[:-2])
    assert again.exit_code == 1


def test_faulty_decoder_is_one_sentence(packages: Path) -> None:
    for body, message in (("return codes", "expected is a tensor"), ("return codes[9]", "failed to decode 2 frames")):
        add_package(
            packages,
            f"class Odd(FrameCodec):\n def decode_codes(self, codes):\n  {body}\n"
            "def load(name, **options): return Odd(1, **options)\n",
        )
        sys.modules.pop("odd", None)
        with pytest.raises(CodectokError, match=message):
            load_codec("odd:x", "cpu").decode(np.zeros((2, 1), np.int64))


def test_clip_that_codec_refuses_is_rejected_alone(packages: Path, recordings: Path, tmp_path: Path) -> None:
    add_codec(
        packages,
        "if (samples[:, 100] > 0.005).any(): raise codectok.AudioError('It is too odd.', 'unsupported')\n"
        "  return super().encode_samples(samples)",
    )
    # The first and the third have one length, and share a batch.
    loud = [soundfile.read(path)[0][100] > 0.005 for path in sorted(recordings.iterdir())]
    assert loud == [True, False, False, False]
    out, options = tmp_path / "out", ["--engine", "local", "--device", "cpu", "--batch-seconds", 3]
    result = codectok("tokenize", recordings, out, "--codec", "odd:x", *options)
    assert result.exit_code == 0, result.output
    rows = {row.source: row.codes for row in open_table(out)}
    assert sorted(rows) == ["1.wav", "2.wav", "3.wav"]
    samples, rate = soundfile.read(recordings / "2.wav", dtype="float32")
    np.testing.assert_array_equal(rows["2.wav"], load_codec("frames:1", "cpu").encode(samples, rate).numpy())


def test_own_codec_is_abstract_without_its_methods() -> None:
    with pytest.raises(TypeError, match="encode_samples"):
        WholeClipCodec()  # type: ignore[abstract]
