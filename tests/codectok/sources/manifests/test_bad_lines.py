"""Lines of manifests that cannot be used: each becomes one reject."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
import soundfile

from codectok import Codec, CodectokError, InputError
from codectok.config import preset
from codectok.pipelines.engine.options import RunOptions
from codectok.pipelines.engine.run import run_job
from codectok.pipelines.verify.output import verify_output
from codectok.sources.listing.arguments import parse_arguments
from codectok.sources.listing.sources import list_sources
from codectok.sources.manifests.read import read_manifest
from codectok.storage import open_storage
from tests.helpers.audio import tone
from tests.helpers.command_line import codectok
from tests.helpers.evaluation import evaluated
from tests.helpers.jobs import LOCAL, rejects, run, shard_job, tokenize_job
from tests.helpers.tars import all_samples

BAD = [
    {"path": "a.wav", "start": 1.0, "duration": 0.0, "text": "nothing"},
    {"path": "a.wav", "start": 3.0, "end": 2.0},
    {"text": "no path"},
]
"""Lines that cannot be used, the first two beside a good line of the same file."""


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """A line that can be used, and the bad ones before and after it."""
    soundfile.write(tmp_path / "a.wav", tone(6, 16_000), 16_000)
    lines = [BAD[0], {"path": "a.wav", "start": 0.5, "end": 3.5, "text": "good"}, *BAD[1:]]
    (tmp_path / "list.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + "{\n")
    return tmp_path / "list.jsonl"


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small codec."""
    folder = tmp_path_factory.mktemp("codec")
    Codec.from_config(preset("nano")).save_pretrained(folder)
    return folder


NAMES = ["a.wav", "a.wav", "list.jsonl#4", "list.jsonl#5"]


def test_bad_lines_are_rejected_by_shard(manifest: Path, tmp_path: Path) -> None:
    report = run(shard_job(), manifest, tmp_path / "out")
    ((sample, _),) = all_samples(tmp_path / "out")
    assert (sample.text, sample.start, sample.duration) == ("good", 0.5, 3.0)
    found = rejects(tmp_path / "out")
    assert sorted(str(row["source"]) for row in found) == NAMES
    assert {row["reason"] for row in found} == {"invalid_row"}
    assert sorted(str(row["message"]).split(" of ")[0] for row in found) == ["Line 1", "Line 3", "Line 4", "Line 5"]
    total = report.summary.total
    assert (total.inputs, total.errors) == (5, 4)
    verify_output(open_storage(tmp_path / "out"))


def test_bad_lines_are_rejected_once_with_deduplication(manifest: Path, tmp_path: Path) -> None:
    run(shard_job(deduplicate=True), manifest, tmp_path / "out")
    assert len(rejects(tmp_path / "out")) == 4
    assert len(all_samples(tmp_path / "out")) == 1


def test_bad_lines_are_rejected_by_tokenize_and_evaluate(manifest: Path, codec: Path, tmp_path: Path) -> None:
    report = run(tokenize_job(codec), manifest, tmp_path / "out")
    assert report.summary.total.rows == 1
    assert sorted(str(row["source"]) for row in rejects(tmp_path / "out")) == NAMES
    report, measured = evaluated(codec, manifest, tmp_path / "evaluation")
    assert (report.summary.total.rows, len(measured)) == (1, 1)
    assert sorted(str(row["source"]) for row in rejects(tmp_path / "evaluation")) == NAMES


def test_encode_skips_bad_lines(manifest: Path, codec: Path, tmp_path: Path) -> None:
    command = ["encode", str(manifest), str(tmp_path / "codes.npz"), "--codec", str(codec)]
    result = codectok(*command)
    assert result.exit_code == 0, result.output
    assert "Line 5" in result.output
    assert codectok(*command[:2], str(tmp_path / "more.npz"), *command[3:], "--strict").exit_code == 2


def test_strict_refuses_the_first_bad_line(manifest: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"Line 1 of list\.jsonl"):
        run(shard_job(), manifest, tmp_path / "out", RunOptions(engine="local", strict=True))
    assert not (tmp_path / "out").exists()


def test_too_many_bad_lines_fail_the_job(manifest: Path, tmp_path: Path) -> None:
    with pytest.raises(CodectokError, match="4 of 5 inputs are broken"):
        run_job(shard_job(), [str(manifest)], tmp_path / "out", RunOptions(engine="local", max_rejects=0.5))


def test_few_bad_lines_do_not_fail_the_job(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(4, 16_000), 16_000)
    lines = [f"a.wav,{n / 100},{2 + n / 100}" for n in range(20)]
    (tmp_path / "list.csv").write_text("\n".join(["path,start,end", *lines, "a.wav,1.0,1.0", ""]))
    report = run_job(shard_job(), [str(tmp_path / "list.csv")], tmp_path / "out", RunOptions(engine="local"))
    assert report.summary.total.rejects == {"invalid_row": 1}
    (reject,) = rejects(tmp_path / "out")
    assert "Line 22 of list.csv" in str(reject["message"])


@pytest.mark.parametrize("name", ["x.jsonl", "x.json", "x.tsv", "x.csv.gz", "x.json.gz"])
def test_file_without_usable_lines_is_refused_with_the_names_that_are_read(name: str, tmp_path: Path) -> None:
    data = b'{"name": "a", "scripts": []}\n' if "json" in name else b"name,number\nann,7\n"
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    with pytest.raises(InputError, match="`audio_filepath`") as caught:
        list_sources(*parse_arguments([str(tmp_path / name)]), ("audio",))
    assert name in str(caught.value)


def test_pretty_printed_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "package.json").write_text(json.dumps({"name": "x", "files": ["a.wav"]}, indent=2))
    with pytest.raises(InputError, match="is not a manifest"):
        list_sources(*parse_arguments([str(tmp_path / "package.json")]), ("audio",))


@pytest.mark.parametrize("suffix", ["json", "json.gz"])
@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("array", [True, False])
def test_json_manifests_are_read_by_content(suffix: str, indent: int | None, array: bool, tmp_path: Path) -> None:
    rows = [{"audio_filepath": f"{n}.wav", "duration": 2.5, "text": 'a "]}[{,\\ ' + "é" * n} for n in range(2000)]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    data = (json.dumps(rows, indent=indent, ensure_ascii=False) if array else lines).encode()
    path = tmp_path / f"train_manifest.{suffix}"
    path.write_bytes(gzip.compress(data) if suffix.endswith("gz") else data)
    (argument,), _ = parse_arguments([str(path)])
    assert (argument.dataset, argument.kind) == ("train_manifest", "manifest")
    found = list(read_manifest(str(tmp_path), path.name))
    assert [(row.path, row.end, row.text) for row in found] == [
        (row["audio_filepath"], 2.5, row["text"]) for row in rows
    ]


def test_bad_entries_of_a_json_array_are_named_by_line(tmp_path: Path) -> None:
    text = '[\n{"path": "a.wav"},\n7,\n{"path": "b.wav",\n "x": nul},\n{"path": "c.wav"}, [1, {"a": "]"}]]'
    (tmp_path / "x.json").write_text(text)
    found = [(row.path, row.problem and row.problem.split(" of ")[0]) for row in read_manifest(str(tmp_path), "x.json")]
    assert found == [
        ("a.wav", None),
        ("x.json#3", "Line 3"),
        ("x.json#4", "Line 4"),
        ("c.wav", None),
        ("x.json#6", "Line 6"),
    ]


@pytest.mark.parametrize(
    "text", ['[{"path": "a.wav"}', '[{"path": "a.wav"} {"path": "b.wav"}]', '[{"path": "a.wav"}, {"p']
)
def test_damaged_json_arrays_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(InputError, match="cannot be read"):
        list(read_manifest(str(tmp_path), "x.json"))


def test_options_accept_many_bad_lines(manifest: Path, tmp_path: Path) -> None:
    assert run(shard_job(), manifest, tmp_path / "out", LOCAL).summary.total.rows == 1


@pytest.mark.parametrize("more", ['[{"path": "b.wav"}]', '{"path": "b.wav"}', "]", "x"])
def test_a_json_array_that_is_not_the_end_is_refused(more: str, tmp_path: Path) -> None:
    for array in ("[]", '[{"path": "a.wav"}]'):
        (tmp_path / "a.json").write_text(f"{array} \n\n{more}\n")
        with pytest.raises(InputError, match="goes on in line 3 behind its JSON array"):
            list(read_manifest(str(tmp_path), "a.json"))
    (tmp_path / "a.json").write_text('\n [ {"path": "a.wav"} ] \n\n')
    assert [row.path for row in read_manifest(str(tmp_path), "a.json")] == ["a.wav"]


def test_objects_over_several_lines_are_read(tmp_path: Path) -> None:
    rows = [{"path": f"{number}.wav", "text": '{ "a" }', "start": number} for number in range(3)]
    for separator in ("\n", ",\n", ""):
        for name in ("a.json", "a.jsonl"):
            (tmp_path / name).write_text(separator.join(json.dumps(row, indent=2) for row in rows) + "\n")
            found = [(row.path, row.text, row.start) for row in read_manifest(str(tmp_path), name)]
            assert found == [(row["path"], row["text"], row["start"]) for row in rows]
    (tmp_path / "a.json").write_text(json.dumps(rows[0], indent=1) + "\n" + json.dumps({"text": "x"}, indent=1))
    assert [row.problem for row in read_manifest(str(tmp_path), "a.json")] == [
        None, "Line 6 of a.json cannot be used: it has no path (path, audio_filepath, audio_path, file or the like)."
    ]  # fmt: skip
    (tmp_path / "a.json").write_text(json.dumps(rows[0], indent=1) + "\n{\n 1")
    with pytest.raises(InputError, match="within the object that begins in line 6"):
        list(read_manifest(str(tmp_path), "a.json"))
    for wrong in ("}", "]", "1", '"a"'):
        (tmp_path / "a.json").write_text(json.dumps(rows[0], indent=1) + f"\n{wrong}")
        with pytest.raises(InputError, match="where an object of JSON should begin"):
            list(read_manifest(str(tmp_path), "a.json"))


@pytest.mark.parametrize("content", [{"data": [{"path": "a.wav"}]}, {"u1": {"wav": "a.wav"}, "u2": {"wav": "b.wav"}}])
@pytest.mark.parametrize("indent", [None, 2])
def test_rows_within_one_object_are_pointed_at(content: dict[str, object], indent: int | None, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(content, indent=indent))
    with pytest.raises(InputError, match=f"other objects in its {next(iter(content))!r}; write each of them as a line"):
        list(read_manifest(str(tmp_path), "a.json"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "path,text\n", "The manifest .*a.csv has no rows"),
        ("a.jsonl", "\n \n", "The manifest .*a.jsonl has no rows"),
        ("a.json", "[]", "The manifest .*a.json has no rows"),
        ("a.txt", "wavs/a.wav|words\n", "a.txt has no audio, nor the name of a manifest; these end in .jsonl"),
    ],
)
def test_named_file_without_rows_is_named(name: str, content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        list_sources(*parse_arguments([str(tmp_path / name)]), kinds=("audio", "unknown"))
