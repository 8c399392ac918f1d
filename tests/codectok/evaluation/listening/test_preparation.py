"""Preparation: the same options choose the same excerpts, and stimuli of a clip differ in nothing but their sound."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile

from codectok import Codec
from codectok.audio.files import read_audio
from codectok.audio.resample import resample
from codectok.errors import CodectokError, InputError
from codectok.evaluation.listening.preparation import PreparationOptions, prepare_test
from codectok.evaluation.listening.signals import loudness
from codectok.evaluation.listening.stored_test import ListeningTest, load_test, stimulus_path
from codectok.evaluation.listening.systems import NamedSystem, parse_codec, parse_folder
from tests.helpers.audio import tone
from tests.helpers.command_line import assert_refused, codectok, one_line
from tests.helpers.tars import write_tar

NAMES = ("a.wav", "sub/b.flac", "sub/c.wav", "d ü.ogg", "e.wav")


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five clips of 2 s and more, and files that cannot be used."""
    folder = tmp_path_factory.mktemp("originals") / "speech"
    (folder / "sub").mkdir(parents=True)
    for number, name in enumerate(NAMES):
        soundfile.write(folder / name, tone(2 + 0.3 * number, 22_050, 200 + 90 * number, seed=number), 22_050)
    soundfile.write(folder / "short.wav", tone(0.4, 22_050), 22_050)
    soundfile.write(folder / "silent.wav", np.zeros(50_000), 22_050)
    (folder / "broken.wav").write_bytes(b"RIFF    WAVEbroken")
    return folder


@pytest.fixture(scope="module")
def halved(originals: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Reconstructions at another rate and level, in other formats."""
    folder = tmp_path_factory.mktemp("halved")
    for name in NAMES:
        samples, rate = soundfile.read(originals / name, dtype="float32")
        path = (folder / name).with_suffix(".flac" if name.endswith(".wav") else ".wav")
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, samples * 0.5, rate)
    return folder


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("codec") / "nano"
    Codec.from_config("nano", seed=1).save_pretrained(folder)
    return folder


def options(originals: Path, halved: Path, **more: object) -> PreparationOptions:
    given: dict[str, object] = {
        "sources": (str(originals),),
        "folders": (NamedSystem("half", str(halved)),),
        "clips": 3,
        "max_seconds": 1.5,
    }
    return PreparationOptions(**{**given, **more})  # type: ignore[arg-type]


def chosen(test: ListeningTest) -> list[tuple[str, float, float]]:
    return [(clip.source, clip.start, clip.seconds) for clip in test.clips]


def samples_of(folder: Path, stimulus: str) -> np.ndarray:
    samples, rate = soundfile.read(stimulus_path(folder, stimulus), dtype="float32")
    assert rate == 48_000
    return samples


def test_stimuli_differ_in_sound_alone(originals: Path, halved: Path, tmp_path: Path) -> None:
    test, skipped = prepare_test(tmp_path / "test", options(originals, halved, clips=9))
    assert load_test(tmp_path / "test") == test
    assert sorted(clip.source for clip in test.clips) == sorted(NAMES)
    assert skipped.count == 3
    assert [system.name for system in test.systems] == ["reference", "anchor", "half"]
    for clip in test.clips:
        stimuli = {name: samples_of(tmp_path / "test", stimulus) for name, stimulus in clip.stimuli.items()}
        assert {len(samples) for samples in stimuli.values()} == {round(clip.seconds * 48_000)}
        paths = [stimulus_path(tmp_path / "test", one) for one in (*clip.stimuli.values(), clip.labelled)]
        assert len({path.stat().st_size for path in paths}) == 1
        np.testing.assert_array_equal(samples_of(tmp_path / "test", clip.labelled), stimuli["reference"])
        np.testing.assert_allclose(stimuli["half"], stimuli["reference"], atol=2e-3)  # also aligned to the sample
        assert np.abs(stimuli["anchor"] - stimuli["reference"]).max() > 0.01
        levels = [loudness(stimuli[name], 48_000) for name in ("reference", "anchor", "half")]
        assert max(levels) - min(levels) < 0.1


def test_stimulus_of_codec_is_its_reconstruction(originals: Path, codec: Path, tmp_path: Path) -> None:
    prepared = PreparationOptions(
        (str(originals),), codecs=(NamedSystem("nano", str(codec)),), clips=1, max_seconds=1, keep_levels=True
    )
    test, _ = prepare_test(tmp_path / "test", prepared)
    clip, loaded = test.clips[0], Codec.from_pretrained(codec)
    assert test.systems[2].fingerprint == loaded.fingerprint
    first = round(clip.start * 48_000)
    excerpt = read_audio(originals / clip.source, 48_000)[first : first + 48_000]
    expected = resample(loaded.reconstruct(excerpt, 48_000).numpy(), loaded.decoded_sample_rate, 48_000)
    inner = slice(480, 47_000)  # without the fades
    np.testing.assert_allclose(samples_of(tmp_path / "test", clip.stimuli["nano"])[inner], expected[inner], atol=1e-4)


def test_choice_depends_on_seed_alone(originals: Path, halved: Path, tmp_path: Path) -> None:
    first, _ = prepare_test(tmp_path / "first", options(originals, halved))
    again, _ = prepare_test(tmp_path / "again", options(originals, halved))
    assert chosen(first) == chosen(again)
    for one, other in zip(first.clips, again.clips, strict=True):
        for name in one.stimuli:
            content = [
                stimulus_path(tmp_path / folder, clip.stimuli[name]).read_bytes()
                for folder, clip in (("first", one), ("again", other))
            ]
            assert content[0] == content[1]
    # Names of stimuli are random: a listener who has the options cannot compute them.
    assert not first.stimulus_ids & again.stimulus_ids
    seeds = {tuple(chosen(prepare_test(tmp_path / str(n), options(originals, halved, seed=n))[0])) for n in range(1, 5)}
    assert len(seeds) > 1


def test_more_clips_keep_those_of_fewer(originals: Path, halved: Path, tmp_path: Path) -> None:
    # Also when unusable clips lie between them.
    tests = [prepare_test(tmp_path / str(n), options(originals, halved, clips=n))[0] for n in (1, 2, 4, 5)]
    for fewer, more in pairwise(tests):
        assert chosen(more)[: len(fewer.clips)] == chosen(fewer)


def test_kept_levels_stay(originals: Path, halved: Path, tmp_path: Path) -> None:
    test, _ = prepare_test(tmp_path / "test", options(originals, halved, keep_levels=True))
    for clip in test.clips:
        stimuli = {name: samples_of(tmp_path / "test", stimulus) for name, stimulus in clip.stimuli.items()}
        np.testing.assert_allclose(2 * stimuli["half"], stimuli["reference"], atol=2e-3)


def test_excerpt_is_the_loudest_part(halved: Path, tmp_path: Path) -> None:
    samples = np.concatenate([0.01 * tone(5, 24_000), tone(2, 24_000), 0.01 * tone(3, 24_000)])
    for folder in ("originals", "others"):
        (tmp_path / folder).mkdir()
        soundfile.write(tmp_path / folder / "a.wav", samples, 24_000)
    test, _ = prepare_test(tmp_path / "test", options(tmp_path / "originals", tmp_path / "others", max_seconds=2))
    assert test.clips[0].start == pytest.approx(5, abs=0.1)
    reference, other = (samples_of(tmp_path / "test", test.clips[0].stimuli[name]) for name in ("reference", "half"))
    np.testing.assert_allclose(reference, other, atol=1e-3)


def test_tar_samples_match_files_named_by_their_keys(originals: Path, tmp_path: Path) -> None:
    members = [(f"one/{name}", (originals / name).read_bytes()) for name in ("a.wav", "e.wav")]
    write_tar(tmp_path / "clips.tar", members)
    (tmp_path / "others" / "one").mkdir(parents=True)
    others = NamedSystem("x", str(tmp_path / "others"))
    prepared = PreparationOptions((str(tmp_path / "clips.tar"),), folders=(others,))
    with pytest.raises(InputError, match=r"2 of 2 clips, the first one/[ae];"):
        prepare_test(tmp_path / "test", prepared)
    for name, content in members:
        (tmp_path / "others" / name).write_bytes(content)
    test, _ = prepare_test(tmp_path / "test", prepared)
    assert len(test.clips) == 2


def test_missing_files_are_one_sentence(originals: Path, halved: Path, tmp_path: Path) -> None:
    (tmp_path / "some" / "sub").mkdir(parents=True)
    (tmp_path / "some" / "a.wav").write_bytes((originals / "a.wav").read_bytes())
    some = NamedSystem("some", str(tmp_path / "some"))
    with pytest.raises(InputError, match=r"system some has no audio file for 4 of 5 clips, the first"):
        prepare_test(tmp_path / "test", options(originals, halved, folders=(some,), clips=5))
    assert not (tmp_path / "test").exists()


@pytest.mark.parametrize("fault", ["length", "double", "damage"])
def test_wrong_reconstruction_is_refused(originals: Path, halved: Path, tmp_path: Path, fault: str) -> None:
    for folder in ("originals", "others"):
        (tmp_path / folder).mkdir()
        soundfile.write(tmp_path / folder / "a.wav", tone(3, 24_000), 24_000)
    other = tmp_path / "others" / "a.wav"
    if fault == "length":
        soundfile.write(other, tone(4, 24_000), 24_000)
    elif fault == "double":
        soundfile.write(other.with_suffix(".flac"), tone(3, 24_000), 24_000)
    else:
        other.write_bytes(other.read_bytes()[:3000])
    with pytest.raises(InputError, match=r"a\.(wav|flac)"):
        prepare_test(tmp_path / "test", options(tmp_path / "originals", tmp_path / "others"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["originals", "others"]


def test_corpus_without_usable_clip_fails(originals: Path, halved: Path, tmp_path: Path) -> None:
    with pytest.raises(CodectokError, match="silent"):
        prepare_test(tmp_path / "test", options(originals / "silent.wav", halved))


@pytest.mark.parametrize(
    ("more", "word"),
    [
        ({"sources": ()}, "--reference"),
        ({"folders": ()}, "at least one"),
        ({"folders": (NamedSystem("anchor", "x"),)}, "anchor"),
        ({"folders": (NamedSystem("x", "x"),), "codecs": (NamedSystem("x", "y"),)}, "Two systems"),
        ({"clips": 0}, "0"),
        ({"max_seconds": float("nan")}, "nan"),
        ({"max_seconds": 0.5}, "0.5"),
    ],
)
def test_impossible_options_are_refused(originals: Path, halved: Path, more: dict[str, object], word: str) -> None:
    with pytest.raises(InputError, match=word):
        options(originals, halved, **more)


def test_systems_have_names(tmp_path: Path) -> None:
    assert parse_codec("run/codec/") == NamedSystem("run/codec", "run/codec/")
    assert parse_codec("ours=run/codec") == NamedSystem("ours", "run/codec")
    assert parse_codec("transformers:x/y@8") == NamedSystem("transformers:x/y@8", "transformers:x/y@8")
    assert parse_folder(f"opus={tmp_path}") == NamedSystem("opus", str(tmp_path))
    for text in ("opus", "=x", "opus=", f"opus={tmp_path}/none"):
        with pytest.raises(InputError):
            parse_folder(text)


def test_command_prepares_once(originals: Path, halved: Path, tmp_path: Path) -> None:
    test = tmp_path / "test"
    assert_refused(codectok("listen", test, "--no-serve"), "holds no listening test", "--reference")
    folders = ["--folder", f"half={halved}"]
    prepare = ["listen", test, "--reference", originals, *folders, "--clips", 9, "--no-serve"]
    result = codectok(*prepare)
    assert result.exit_code == 0, result.output
    assert "Only 5 clips of 9" in one_line(result.stderr)
    before = (test / "listening.json").read_bytes()
    assert_refused(codectok(*prepare), "--reference, --folder, --clips", str(test))
    assert_refused(codectok("listen", test, "--seed", 0, "--no-serve"), "--seed")
    result = codectok("listen", test, "--no-serve")
    assert (result.exit_code, "No ratings yet" in result.output) == (0, True)
    assert (test / "listening.json").read_bytes() == before
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    assert_refused(codectok("listen", tmp_path / "other", *prepare[2:]), "not empty")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": "codectok.listening"}', '{"format": "other"}'])
def test_damaged_test_is_one_sentence(tmp_path: Path, content: str) -> None:
    (tmp_path / "listening.json").write_text(content)
    assert_refused(codectok("listen", tmp_path, "--no-serve"), "listening.json")


def test_test_of_unequal_clips_is_refused(originals: Path, halved: Path, tmp_path: Path) -> None:
    prepare_test(tmp_path / "test", options(originals, halved))
    path = tmp_path / "test" / "listening.json"
    content = json.loads(path.read_text())
    del content["clips"][1]["stimuli"]["half"]
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="clip 1"):
        load_test(tmp_path / "test")
