"""Corpora as they are: folders of known layouts are read with their words."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import soundfile

from codectok import InputError
from codectok.sources.kinds import AUDIO_KINDS
from codectok.sources.listing.arguments import parse_arguments
from codectok.sources.listing.ordering import ordered_sources
from codectok.sources.listing.sources import Listing, list_sources
from codectok.sources.source import Source
from tests.helpers.audio import tone
from tests.helpers.command_line import codectok, one_line
from tests.helpers.jobs import LOCAL, rejects, run, shard_job
from tests.helpers.tars import all_samples


def touch(root: Path, *names: str) -> None:
    """Empty files: listing does not open audio."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def write(root: Path, name: str, *lines: str) -> Path:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return root / name


def listed(place: Path) -> Listing:
    return list_sources(*parse_arguments([str(place)]), AUDIO_KINDS)


def sources_in(place: Path) -> list[Source]:
    return list(ordered_sources(listed(place)))


def texts_in(place: Path) -> dict[str, str | None]:
    return {source.path: source.text for source in sources_in(place)}


def layouts_of(listing: Listing) -> set[str]:
    return {name for layouts in listing.layouts.values() for name in layouts}


def sidecars_of(listing: Listing) -> set[str]:
    return {name for unused in listing.unused.values() for name in unused.get("sidecars", {})}


def test_plain_folder_is_listed_as_before(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav", "b/c.mp3", "b/d.flac")
    write(tmp_path, "notes.txt", "about the corpus")
    write(tmp_path, "b/table.csv", "name,number", "x,1")
    listing = listed(tmp_path)
    assert texts_in(tmp_path) == {"a.wav": None, "b/c.mp3": None, "b/d.flac": None}
    assert all(source.key_path == source.path for source in sources_in(tmp_path))
    assert listing.ignored == 2
    assert not layouts_of(listing)


def kaldi(root: Path, waves: Sequence[str], **tables: Sequence[str]) -> Path:
    write(root, "data/wav.scp", *waves)
    for name, lines in tables.items():
        write(root, f"data/{name}", *lines)
    return root / "data"


@pytest.mark.parametrize("named", ["data", "data/wav.scp"])
def test_kaldi_recordings_are_read(named: str, tmp_path: Path) -> None:
    touch(tmp_path, "audio/a.wav", "b c.flac")
    kaldi(
        tmp_path,
        ["u1 audio/a.wav", f"u2\t{tmp_path}/b c.flac"],
        text=["u1 the words  of it", "u2", "u3 lost words"],
        utt2spk=["u1 ann", "u2 bob"],
        utt2lang=["u1 de"],
        spk2gender=["ann f"],
    )
    listing = listed(tmp_path / named)
    first, second = sorted(ordered_sources(listing), key=lambda source: source.id or "")
    assert (first.path, first.id, first.text, first.speaker, first.language, first.extra) == (
        "../audio/a.wav", "u1", "the words  of it", "ann", "de", '{"gender": "f"}'
    )  # fmt: skip
    assert first.location.resolve() == tmp_path / "audio" / "a.wav"
    assert (second.path, second.text, second.speaker) == (f"{tmp_path}/b c.flac", None, "bob")
    (unused,) = listing.unused.values()
    assert unused["columns"]["text without audio"].count == 1
    assert listing.ignored == 0
    assert layouts_of(listing) == {"Kaldi"}


def test_kaldi_segments_are_read(tmp_path: Path) -> None:
    touch(tmp_path, "data/a.wav", "data/b.wav")
    segments = ["u1 a 0.5 2.25", "u2 a 3 -1", "u3 b 1 0.5", "u4 c 0 1", "u5 b -1 2", "u6 b 1", "u7 a 5 6 1"]
    folder = kaldi(tmp_path, ["a a.wav", "b b.wav"], segments=segments, text=["u1 one", "u2 two"])
    found = {source.id or source.path: source for source in sources_in(folder)}
    times = {name: (source.path, source.start, source.end, source.channel) for name, source in found.items()}
    assert times["u1"] == ("a.wav", 0.5, 2.25, None)
    assert times["u2"] == ("a.wav", 3.0, None, None)
    assert times["u7"] == ("a.wav", 5.0, 6.0, 1)
    bad = sorted(source.problem.split(" of ")[0] for source in found.values() if source.problem)
    assert bad == ["Line 3", "Line 4", "Line 5", "Line 6"]


def test_kaldi_commands_are_refused_and_never_executed(tmp_path: Path) -> None:
    touch(tmp_path, "data/a.wav")
    command = f"touch {tmp_path}/executed |"
    folder = kaldi(tmp_path, ["u1 a.wav", f"u2 {command}", "u3 foo.ark:123", "u4"], text=["u2 words"])
    problems = {source.path: source.problem for source in sources_in(folder)}
    assert problems["a.wav"] is None
    assert "never executed" in (problems["wav.scp#2"] or "")
    assert {"wav.scp#3", "wav.scp#4"} < set(problems)
    assert not (tmp_path / "executed").exists()


def test_kaldi_channels_are_read_where_recordings_share_a_file(tmp_path: Path) -> None:
    touch(tmp_path, "data/call.wav", "data/side.wav", "data/both.wav")
    waves = ["c-A call.wav", "c-B call.wav", "s-B side.wav", "x both.wav", "y both.wav"]
    folder = kaldi(tmp_path, waves, reco2file_and_channel=["c-A call A", "c-B call B", "s-B side B"])
    found = {source.id: source for source in sources_in(folder)}
    assert [found[name].channel for name in ("c-A", "c-B", "s-B")] == [0, 1, None]
    assert found["x"].problem is not None  # both would be the same mixture
    assert found["y"].problem is not None


@pytest.mark.parametrize("named", ["", "metadata.csv"])
@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_ljspeech_is_read(named: str, suffix: str, tmp_path: Path) -> None:
    touch(tmp_path, *(f"wavs/LJ{n}{suffix}" for n in range(4)))
    lines = ['LJ0|Dr. "No|Doctor "No', "LJ1|plain|plain", "LJ2|only one|", "no bars", "|x|y"]
    write(tmp_path, "metadata.csv", *lines)
    found = {source.path: source for source in sources_in(tmp_path / named)}
    assert [found[f"wavs/LJ{n}{suffix}"].text for n in range(3)] == ['Doctor "No', "plain", "only one"]
    assert found[f"wavs/LJ0{suffix}"].extra == json.dumps({"original_text": 'Dr. "No'})
    assert found["metadata.csv#4"].problem is not None
    assert found["metadata.csv#5"].problem is not None
    assert (f"wavs/LJ3{suffix}" in found) == (named == "")  # a folder is read whole


def test_librispeech_is_read(tmp_path: Path) -> None:
    for chapter in ("103/1240", "103/1241", "84/2"):
        name = chapter.replace("/", "-")
        touch(tmp_path, *(f"dev/{chapter}/{name}-000{n}.flac" for n in range(3)))
        write(tmp_path, f"dev/{chapter}/{name}.trans.txt", *(f"{name}-000{n} WORDS {name} {n}" for n in (0, 1, 7)))
    found = {source.path: source for source in sources_in(tmp_path)}
    assert found["dev/103/1240/103-1240-0001.flac"].text == "WORDS 103-1240 1"
    assert found["dev/84/2/84-2-0000.flac"].speaker == "84"
    assert found["dev/84/2/84-2-0002.flac"].text is None
    assert len([source for source in found.values() if source.problem]) == 3
    assert len(found) == 9 + 3
    assert listed(tmp_path).ignored == 0


def test_libritts_and_other_texts_beside_audio_are_read(tmp_path: Path) -> None:
    touch(tmp_path, "84/84_1_2_3.wav", "b.flac", "c.wav", "d.mp3", "e.wav", "f.wav", "g.wav", "g.mp3")
    write(tmp_path, "84/84_1_2_3.normalized.txt", "Doctor Who")
    write(tmp_path, "84/84_1_2_3.original.txt", "Dr. Who")
    (tmp_path / "b.txt").write_bytes("\ufeffcafé\r\n".encode())
    write(tmp_path, "c.lab", "words of c")
    write(tmp_path, "d.lab", "0 3200000 sil", "3200000 4100000 a")
    (tmp_path / "e.txt").write_bytes("café".encode("latin-1"))
    (tmp_path / "f.txt").write_bytes("café".encode("utf-16"))
    write(tmp_path, "g.txt", "two files")
    write(tmp_path, "other.txt", "beside no audio")
    listing = listed(tmp_path)
    found = {source.path: source for source in ordered_sources(listing)}
    texts = {path: source.text for path, source in found.items()}
    assert texts == {
        "84/84_1_2_3.wav": "Doctor Who", "b.flac": "café", "c.wav": "words of c", "d.mp3": None, "e.wav": None,
        "f.wav": "café", "g.wav": "two files", "g.mp3": "two files",
    }  # fmt: skip
    assert found["84/84_1_2_3.wav"].speaker == "84"
    assert found["84/84_1_2_3.wav"].extra == '{"original_text": "Dr. Who"}'
    assert "UTF-8" in (found["e.wav"].problem or "")
    assert listing.ignored == 1
    (unused,) = listing.unused.values()
    assert unused["columns"]["times in .lab"].example == "d.lab"


CLIPS = ["client_id\tpath\tsentence\tlocale", "v1\tc1.mp3\tOne.\ten", "v2\tc2.mp3\tTwo.\ten"]


@pytest.mark.parametrize("named", ["", "train.tsv"])
def test_common_voice_with_one_table_is_read(named: str, tmp_path: Path) -> None:
    touch(tmp_path, "clips/c1.mp3", "clips/c2.mp3")
    write(tmp_path, "train.tsv", *CLIPS)
    first, second = sources_in(tmp_path / named)
    assert (first.path, first.text, first.speaker, first.language) == ("clips/c1.mp3", "One.", "v1", "en")
    assert (second.path, second.text) == ("clips/c2.mp3", "Two.")


def test_common_voice_with_several_tables_says_that_they_are_not_read(tmp_path: Path) -> None:
    touch(tmp_path, "clips/c1.mp3", "clips/c2.mp3")
    for name in ("train.tsv", "validated.tsv"):
        write(tmp_path, name, *CLIPS)
    assert texts_in(tmp_path) == {"clips/c1.mp3": None, "clips/c2.mp3": None}
    assert sidecars_of(listed(tmp_path)) == {"Common Voice: train.tsv", "Common Voice: validated.tsv"}
    assert texts_in(tmp_path / "train.tsv") == {"clips/c1.mp3": "One.", "clips/c2.mp3": "Two."}


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])
@pytest.mark.parametrize("named", [True, False])
def test_audio_folder_is_read(name: str, named: bool, tmp_path: Path) -> None:
    touch(tmp_path, "train/a.wav", "train/deep/b.wav", "train/c.wav", "test/a.wav")
    rows: list[dict[str, Any]] = [
        {"file_name": "a.wav", "transcription": "one"},
        {"file_name": "deep/b.wav", "transcription": "two"},
        {"file_name": "missing.wav", "transcription": "three"},
    ]
    table = ["file_name,transcription", *(f"{row['file_name']},{row['transcription']}" for row in rows)]
    write(tmp_path, f"train/{name}", *(table if name.endswith("csv") else map(json.dumps, rows)))
    if named:
        expected = {"a.wav": "one", "deep/b.wav": "two", "missing.wav": "three"}
        assert texts_in(tmp_path / "train" / name) == expected
    else:
        assert texts_in(tmp_path) == {
            "test/a.wav": None, "train/a.wav": "one", "train/c.wav": None, "train/deep/b.wav": "two",
            "train/missing.wav": "three",
        }  # fmt: skip


def test_two_tables_of_an_audio_folder_are_not_read(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav")
    write(tmp_path, "metadata.csv", "file_name,text", "a.wav,one")
    write(tmp_path, "metadata.jsonl", '{"file_name": "a.wav", "text": "two"}')
    assert texts_in(tmp_path) == {"a.wav": None}
    assert len(sidecars_of(listed(tmp_path))) == 2


def test_names_of_folders_become_labels(tmp_path: Path) -> None:
    touch(tmp_path, "language=de/speaker=ann/a.wav", "language=fr/year=2020/b.parquet", "lang=e%20n/c.tar", "x=/d.wav")
    touch(tmp_path, "language=__HIVE_DEFAULT_PARTITION__/e.wav")
    write(tmp_path, "language=de/speaker=ann/a.txt", "words")
    found = {source.path.rpartition("/")[2]: source for source in sources_in(tmp_path)}
    assert (found["a.wav"].language, found["a.wav"].speaker, found["a.wav"].text) == ("de", "ann", "words")
    assert (found["b.parquet"].language, found["b.parquet"].extra) == ("fr", '{"year": "2020"}')
    assert found["c.tar"].language == "e n"
    assert (found["d.wav"].language, found["e.wav"].language) == (None, None)
    patterns = list_sources(*parse_arguments([f"{tmp_path}/*/*/*.parquet"]), AUDIO_KINDS)
    assert [source.language for source in ordered_sources(patterns)] == ["fr"]


@pytest.mark.parametrize("named", ["", "a.wav", "*.wav"])
def test_names_of_the_named_folder_become_labels(named: str, tmp_path: Path) -> None:
    touch(tmp_path, "language=de/speaker=ann/a.wav")
    (source,) = sources_in(tmp_path / "language=de" / "speaker=ann" / named)
    assert (source.path, source.language, source.speaker) == ("a.wav", "de", "ann")


def test_pattern_reads_the_audio_only(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav")
    write(tmp_path, "a.txt", "notes")
    assert texts_in(tmp_path / "*.wav") == {"a.wav": None}


def test_table_in_another_encoding_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "wavs/a.wav")
    (tmp_path / "metadata.csv").write_bytes("a|café|café\n".encode("latin-1"))
    with pytest.raises(InputError, match="UTF-8"):
        listed(tmp_path)


def test_order_of_files_does_not_matter_and_remote_folders_are_read(tmp_path: Path) -> None:
    touch(tmp_path, "wavs/LJ1.wav", "z/b.wav", "z-1/c.wav", "z/sub/d.wav")
    write(tmp_path, "metadata.csv", "LJ1|one|one")
    write(tmp_path, "z/b.txt", "two")
    write(tmp_path, "z/sub/d.txt", "three")
    listing = list_sources(*parse_arguments([f"x=file://{tmp_path}"]), AUDIO_KINDS)
    assert {source.path: source.text for source in ordered_sources(listing)} == texts_in(tmp_path)
    assert texts_in(tmp_path) == {"wavs/LJ1.wav": "one", "z/b.wav": "two", "z-1/c.wav": None, "z/sub/d.wav": "three"}


def test_layout_and_its_words_are_in_output_and_summary(tmp_path: Path) -> None:
    (tmp_path / "in" / "wavs").mkdir(parents=True)
    for n in range(2):
        soundfile.write(tmp_path / "in" / "wavs" / f"LJ{n}.wav", tone(3, 16_000, 200 + 99 * n), 16_000)
    write(tmp_path / "in", "metadata.csv", "LJ0|Dr.|Doctor", "LJ1|words|words", "LJ2|no file|no file")
    result = codectok("shard", tmp_path / "in", tmp_path / "out", "--engine", "local", "--max-rejects", "1")
    assert result.exit_code == 0, result.output
    assert "LJSpeech (1 file, such as metadata.csv)" in one_line(result.output).replace("│ ", "")
    found = {sample.source: (sample.text, sample.extra) for sample, _ in all_samples(tmp_path / "out")}
    assert found == {"wavs/LJ0.wav": ("Doctor", {"original_text": "Dr."}), "wavs/LJ1.wav": ("words", None)}
    assert [row["reason"] for row in rejects(tmp_path / "out")] == ["unreadable"]
    summary = json.loads((tmp_path / "out" / "_codectok" / "summary.json").read_text())
    assert summary["layouts"] == {"LJSpeech": {"count": 1, "example": "metadata.csv"}}


def test_labels_of_folders_reach_samples_of_tars(tmp_path: Path) -> None:
    from tests.helpers.tars import write_tar

    (tmp_path / "in" / "language=de" / "gender=f").mkdir(parents=True)
    soundfile.write(tmp_path / "a.wav", tone(3, 16_000), 16_000)
    data = (tmp_path / "a.wav").read_bytes()
    members = [("a.wav", data), ("a.json", b'{"text": "words", "lang": "gsw"}'), ("b.wav", data)]
    write_tar(tmp_path / "in" / "language=de" / "gender=f" / "x.tar", members)
    run(shard_job(), tmp_path / "in", tmp_path / "out", LOCAL)
    found = {sample.source[-5:]: sample for sample, _ in all_samples(tmp_path / "out")}
    assert (found["a.wav"].language, found["a.wav"].text) == ("gsw", "words")
    assert (found["b.wav"].language, found["b.wav"].extra) == ("de", {"gender": "f"})


@pytest.mark.parametrize("place", ["audio/{}", "{root}/audio/{}", "../audio/{}"])
@pytest.mark.parametrize("folder", ["a", "audio/z", "data"])
def test_audio_is_read_once_whatever_folder_is_listed_first(folder: str, place: str, tmp_path: Path) -> None:
    touch(tmp_path, "audio/1.wav", "audio/2.wav", "audio/3.wav", "audio/lang=de/4.wav", "audio/lang=de/5.wav")
    names = ["1.wav", "2.wav", "lang=de/4.wav"]
    if place.startswith(".."):
        place = "../" * folder.count("/") + place
    write(tmp_path, f"{folder}/wav.scp", *(f"u{i} {place.format(n, root=tmp_path)}" for i, n in enumerate(names)))
    write(tmp_path, f"{folder}/text", "u0 one", "u1 two", "u2 four")
    found = sources_in(tmp_path)
    words = sorted((str(source.location.relative_to(tmp_path)), source.text, source.language) for source in found)
    assert words == [
        ("audio/1.wav", "one", None),
        ("audio/2.wav", "two", None),
        ("audio/3.wav", None, None),
        ("audio/lang=de/4.wav", "four", "de"),
        ("audio/lang=de/5.wav", None, "de"),
    ]


def test_lines_of_kaldi_that_repeat_a_name_are_not_lost(tmp_path: Path) -> None:
    touch(tmp_path, "data/a.wav")
    segments = ["u1 a 0 1", "u1 a 1 2", "u2 a 2 3"]
    folder = kaldi(tmp_path, ["a a.wav"], segments=segments, text=["u1 one", "u2 two", "u1 other", "u2 two"])
    listing = listed(folder)
    found = {source.start: (source.text, source.problem) for source in ordered_sources(listing)}
    problem = "Line 2 of segments cannot be used: the utterance u1 is named before."
    assert found == {0.0: ("one", None), 2.0: ("two", None), None: (None, problem)}
    (unused,) = listing.unused.values()
    assert (unused["columns"]["repeated lines of text"].count, unused["columns"]["repeated lines of text"].example) == (
        1, "u1"
    )  # fmt: skip


def test_parties_of_a_call_keep_their_words(tmp_path: Path) -> None:
    touch(tmp_path, "call.wav")
    source = {"type": "file", "channels": [0, 1, 2], "source": "call.wav"}
    recording = {"id": "r", "sources": [source], "sampling_rate": 8000, "num_samples": 80_000, "duration": 10.0}
    write(tmp_path, "recordings.jsonl", json.dumps(recording))
    spoken = [(0, 1.0, "hello"), ([1], 2.5, "who is it"), (0, 4.0, "me")]
    lines = [
        {"id": f"s{start}", "recording_id": "r", "start": start, "duration": 1.0, "channel": channel, "text": text}
        for channel, start, text in spoken
    ]
    write(tmp_path, "supervisions.jsonl", *map(json.dumps, lines))
    found = sources_in(tmp_path / "recordings.jsonl")
    assert sorted((source.channel, source.text, source.id) for source in found) == [
        (0, "hello me", "r-0"), (1, "who is it", "r-1"), (2, None, "r-2")
    ]  # fmt: skip
    write(tmp_path, "supervisions.jsonl", *(json.dumps(line | {"channel": [0, 1, 2]}) for line in lines))
    (one,) = sources_in(tmp_path / "recordings.jsonl")
    assert (one.channel, one.text) == (None, "hello who is it me")


def test_compressed_tables_are_no_archives(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav", "b.jsonl.gz", "c.tsv.gz", "d.zip")
    (unused,) = listed(tmp_path).unused.values()
    assert set(unused["ignored_files"]) == {".jsonl.gz", ".tsv.gz", ".zip (archives: unpack them first)"}


@pytest.mark.parametrize(
    "header", ["audio_file|text|speaker_name", "id|text|speaker", "\ufeffFile | Transcript | spk_id"]
)
def test_table_with_a_header_is_not_read_as_ljspeech(header: str, tmp_path: Path) -> None:
    touch(tmp_path, "wavs/a.wav")
    for place in ("wavs/a.wav", "a"):
        write(tmp_path, "metadata.csv", header, f"{place}|the words|ann")
        listing = listed(tmp_path)
        assert texts_in(tmp_path) == {"wavs/a.wav": None}
        assert (layouts_of(listing), listing.ignored) == (set(), 1)
    if not header.startswith("id"):
        write(tmp_path, "metadata.csv", header, "wavs/a.wav|the words|ann")
        (source,) = sources_in(tmp_path / "metadata.csv")
        assert (source.path, source.text, source.speaker) == ("wavs/a.wav", "the words", "ann")


@pytest.mark.parametrize("suffix", [".txt", ".lab"])
def test_text_of_several_lines_is_not_the_words_of_a_recording(suffix: str, tmp_path: Path) -> None:
    """Such files describe recordings, or hold translations."""
    for name, text in (("a", "Fire truck\nde=Feuerwehr\n"), ("b", "\nwords of b\n\n"), ("c", "one\r\ntwo")):
        (tmp_path / f"{name}.wav").write_bytes(b"audio")
        (tmp_path / f"{name}{suffix}").write_text(text)
    listing = listed(tmp_path)
    texts = {source.path: source.text for source in ordered_sources(listing)}
    assert texts == {"a.wav": None, "b.wav": "words of b", "c.wav": None}
    (unused,) = listing.unused.values()
    assert unused["columns"][f"several lines in {suffix}"].count == 2
