"""Exit codes and messages of the command line; errors are one sentence without a traceback."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pyarrow.dataset
import pytest
import soundfile

from codectok import Codec
from codectok.audio.files import read_audio
from codectok.cli.export import app as export
from codectok.cli.imports import app as imports
from codectok.cli.main import app
from tests.helpers.command_line import assert_refused, codectok, command_names, one_line
from tests.helpers.storage import DATA

STUDENT = DATA / "golden" / "student"


INTERRUPTED_AT_ONCE = """
import os, sys
import codectok.cli.main
import codectok.train.config

codectok.train.config.load_stages = lambda *_: os.kill(os.getpid(), int(sys.argv.pop()))
codectok.cli.main.main()
"""


def test_encode_names_its_output_after_the_first_input(
    corpus: Path, codec_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    named: dict[str, list[object]] = {
        "a": [corpus / "a.wav"],
        "b": [corpus / "b.flac", corpus / "a.wav"],
        corpus.name: [corpus],
        "mine": [f"mine={corpus}"],
        "pattern": [f"pattern={corpus}/*.flac"],
    }
    for name, inputs in named.items():
        result = codectok("encode", *inputs, "--codec", codec_folder)
        assert result.exit_code == 0, result.output
        with np.load(f"{name}.npz") as written:
            assert written.files
    assert_refused(codectok("encode", corpus / "a.wav", "--codec", codec_folder), "a.npz already exists")
    Path("b.npz").unlink()
    for mistyped in (["none.wav"], [corpus / "b.flac", "none.wav"]):
        assert_refused(codectok("encode", *mistyped, "--codec", codec_folder), "none")
        assert not Path("b.npz").exists()
    assert_refused(codectok("encode", corpus, "codes.zip", "--codec", codec_folder), ".npz or .parquet")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_signal_before_start_exits_as_interrupted(number: signal.Signals) -> None:
    command = [sys.executable, "-c", INTERRUPTED_AT_ONCE, "train", "nano", str(int(number))]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (130, "Error: Interrupted.\n")


INTERRUPTED_IN_AN_IMPORT = """
import os, signal, sys
import codectok.cli.main
import codectok.train.config
from codectok.train.config import load_stages

def interrupted(*arguments):
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt:
        pass  # as torch does while importing numpy
    if "fails" in sys.argv:
        raise AttributeError("module 'numpy' has no attribute 'multiply'")
    return load_stages("nano", ["data.shards=nowhere"])

codectok.train.config.load_stages = interrupted
codectok.cli.main.main()
"""


@pytest.mark.parametrize("arguments", [["fails"], ["continues"], ["continues", "--dry-run"]])
def test_signal_swallowed_by_library_exits_as_interrupted(arguments: list[str]) -> None:
    command = [sys.executable, "-c", INTERRUPTED_IN_AN_IMPORT, "train", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (130, "Error: Interrupted.\n")


def test_help_is_fast_and_shows_examples() -> None:
    result = subprocess.run([sys.executable, "-m", "codectok", "--help"], capture_output=True, text=True, check=True)
    loaded = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "codectok", "--help"], capture_output=True, text=True, check=True
    ).stderr
    assert not any(
        f"| {heavy}\n" in loaded.replace(" ", "").replace("|", "| ") for heavy in ("torch", "ray", "pyarrow")
    )
    verbs = command_names(app)
    assert verbs == {
        "shard",
        "train",
        "report",
        "tokenize",
        "encode",
        "decode",
        "reconstruct",
        "evaluate",
        "listen",
        "inspect",
        "verify",
        "import-distilcodec",
        "status",
        "clean",
    }
    assert [group.name for group in app.registered_groups] == ["export", "import"]
    forms = command_names(export.app)
    assert forms == {
        "codec",
        "codes",
        "compact",
        "vocabulary",
        "unitts",
        "chat",
        "huggingface",
        "tokenizer",
        "language-model",
        "sequences",
        "megatron",
    }
    for verb in (*verbs, "export"):
        assert verb in result.stdout
    shown = one_line(codectok("export", "--help").stdout)
    for form in forms:
        assert form in shown
    assert command_names(imports.app) == {"codes"}
    groups = (*(("export", form) for form in forms), ("import", "codes"))
    for words in (*((verb,) for verb in verbs), *groups):
        page = codectok(*words, "--help")
        assert page.exit_code == 0
        assert f"codectok {' '.join(words)} " in one_line(page.stdout).partition("Example:")[2]


def test_encode_decode_and_inspect(codec: Path, corpus: Path, tmp_path: Path) -> None:
    for suffix in ("npz", "parquet"):
        codes = tmp_path / f"codes.{suffix}"
        result = codectok("encode", corpus, codes, "--codec", codec)
        assert result.exit_code == 0, result.output
        assert "text.wav" in result.stderr
        assert result.stderr.count("Skipped.") == 5
        assert "clips │ 7 " in " ".join(result.stdout.split())
        assert codectok("inspect", codes).exit_code == 0
        result = codectok("decode", codes, tmp_path / suffix, "--codec", codec)
        assert result.exit_code == 0, result.output
        assert len(list((tmp_path / suffix).glob("*.wav"))) == 7
    assert {path.name for path in (tmp_path / "npz").iterdir()} == {
        path.name for path in (tmp_path / "parquet").iterdir()
    }


def test_decode_knows_duration_of_clips(
    codec: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = tmp_path / "codes.npz"
    codectok("encode", corpus / "a.wav", codes, "--codec", codec)
    monkeypatch.setattr("codectok.audio.files.LARGEST_WAV", 24_000)
    result = codectok("decode", codes, tmp_path / "out", "--codec", codec)
    assert result.exit_code == 0, result.output
    (path,) = (tmp_path / "out").iterdir()
    assert (soundfile.info(path).format, soundfile.info(path).frames) == ("RF64", 3 * 24_000 // 256 * 256)


def test_decode_one_clip_to_one_file(codec: Path, corpus: Path, tmp_path: Path) -> None:
    codectok("encode", corpus / "a.wav", tmp_path / "codes.npz", "--codec", codec)
    with np.load(tmp_path / "codes.npz") as arrays:
        name = next(key for key in arrays.files if key != "codectok")
    result = codectok("decode", tmp_path / "codes.npz", tmp_path / "a.wav", "--codec", codec, "--id", name)
    assert result.exit_code == 0, result.output
    assert soundfile.info(tmp_path / "a.wav").frames == 3 * 24_000 // 256 * 256
    assert_refused(codectok("decode", tmp_path / "codes.npz", tmp_path / "b.wav", "--codec", codec), "--id")
    assert_refused(
        codectok("decode", tmp_path / "codes.npz", tmp_path / "b.wav", "--codec", codec, "--id", "x"), "no clip x"
    )


def test_reconstruct_prints_the_mel_error(codec: Path, corpus: Path, tmp_path: Path) -> None:
    result = codectok("reconstruct", corpus / "stereo.wav", tmp_path / "again.wav", "--codec", codec)
    assert result.exit_code == 0, result.output
    assert "mel error" in result.stdout
    assert len(read_audio(tmp_path / "again.wav", 24_000)) == 4 * 24_000 // 256 * 256
    again = codectok("reconstruct", corpus / "stereo.wav", tmp_path / "again.wav", "--codec", codec)
    assert_refused(again, "already exists")


def test_imported_codec_states_its_origin(tmp_path: Path) -> None:
    result = codectok("import-distilcodec", STUDENT, tmp_path / "codec", "--step", 42)
    assert result.exit_code == 0, result.output
    shown = one_line(codectok("inspect", tmp_path / "codec").stdout)
    assert "imported from DistilCodec g_00000042" in shown
    assert "93.75 per second" in shown
    assert_refused(codectok("import-distilcodec", STUDENT, tmp_path / "codec"), "not empty")
    assert_refused(codectok("import-distilcodec", STUDENT, tmp_path / "b", "--step", 4), "holds no step 4")


@pytest.mark.parametrize("name", ["distilcodec-v1", "distilcodec-teacher", "nano"])
def test_inspect_preset(name: str) -> None:
    shown = one_line(codectok("inspect", name).stdout)
    assert "93.75 per second" in shown
    if name == "distilcodec-v1":
        assert "1,406.2 bit/s" in shown or "1,406.3 bit/s" in shown


def test_shard_tokenize_inspect_and_verify_on_local_engine(codec: Path, corpus: Path, tmp_path: Path) -> None:
    shards, tokens = tmp_path / "shards", tmp_path / "tokens"
    result = codectok("shard", corpus, shards, "--engine", "local", "--shard-seconds", 15, "--max-rejects", 1)
    assert result.exit_code == 0, result.output
    assert "1 decode_error" in result.stdout
    assert "nan.wav has samples that are not finite" in one_line(result.stderr)
    result = codectok("tokenize", shards, tokens, "--codec", codec, "--engine", "local")
    assert result.exit_code == 0, result.output
    assert pyarrow.dataset.dataset(tokens).count_rows() > 5
    again = codectok("tokenize", shards, tokens, "--codec", codec, "--engine", "local")
    assert again.exit_code == 0
    assert "already finished" in one_line(again.stdout)
    for output in (shards, tokens, shards / "shard-000000.tar"):
        assert codectok("inspect", output).exit_code == 0
    assert "first segment" in codectok("inspect", shards).stdout
    for output in (shards, tokens):
        verified = codectok("verify", output)
        assert verified.exit_code == 0, verified.output
        assert "no fault found" in one_line(verified.stdout)
    codectok("shard", corpus, tmp_path / "part", "--engine", "local", "--shard-seconds", 15, "--limit", 1)
    assert "1 of 4 are finished" in one_line(codectok("inspect", tmp_path / "part").stdout)
    refused = codectok("verify", tmp_path / "part")
    assert refused.exit_code == 1
    assert "run the same command again" in one_line(refused.stderr)
    assert_refused(codectok("verify", tmp_path), "holds no output of a job")
    dry = codectok("shard", corpus, tmp_path / "dry", "--dry-run", "--engine", "local")
    assert "dry run" in one_line(dry.stdout)
    assert not (tmp_path / "dry").exists()
    (tmp_path / "no.tar").write_text("text")
    assert_refused(codectok("inspect", tmp_path / "no.tar"), "cannot be read as a tar")


@pytest.mark.parametrize(("options", "needed"), [
    (["--share", 0.5], "--sources"),
    (["--share", 1.0, "--decode", 1], "--sources"),
    (["--seed", 0], "--reencode or --decode or --sources"),
    (["--to", "listen"], "--decode"),
    (["--to", "listen", "--reencode", 1], "--decode"),
    (["--device", "auto"], "--reencode or --decode"),
    (["--codec", "nano", "--sources"], "--reencode or --decode"),
    (["--decode", 0, "--to", "listen"], "--decode"),
])  # fmt: skip
def test_verify_refuses_options_without_effect(options: list[object], needed: str, tmp_path: Path) -> None:
    result = codectok("verify", tmp_path, *options)
    assert_refused(result, f"has no effect without {needed};")


def test_verify_refuses_file_as_folder_of_decoded_clips(tmp_path: Path) -> None:
    (tmp_path / "listen").touch()
    assert_refused(codectok("verify", tmp_path, "--decode", 1, "--to", tmp_path / "listen"), "listen is a file")


@pytest.mark.parametrize("command", [
    "shard in out --engine local --workers 2",
    "tokenize in out --engine local --cpu-workers 2",
    "tokenize in out --address auto --engine local",
    "tokenize in out --engine local --gpus 1",
    "tokenize in out --engine local --encoders-per-gpu 1",
    "export sequences in out --engine local --deadline-hours 6",
    "evaluate in out --engine local --gpus 1 --dry-run",
    "import codes in out --codec nano --engine local --workers 3",
    "train nano output=out --engine local --address auto",
    "train nano output=out --engine local --min-workers 1",
    "train nano output=out --engine torchrun --retries 3",
    "train nano output=out --engine torchrun --wait-minutes 5 --dry-run",
])  # fmt: skip
def test_engines_without_ray_refuse_its_options(command: str) -> None:
    assert_refused(codectok(*command.split()), "runs without Ray")


def test_local_engine_ignores_variables_of_ray_and_takes_one_worker(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    result = codectok("shard", corpus / "a.wav", tmp_path / "out", "--engine", "local", "--workers", 1)
    assert result.exit_code == 0, result.output


def test_inspect_damaged_shards_is_refused(corpus: Path, tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    codectok("shard", corpus / "a.wav", shards, "--engine", "local")
    tar = shards / "shard-000000.tar"
    data = tar.read_bytes()
    for damaged in (b"", b"text", data[:1000], bytes(len(data))):
        tar.write_bytes(damaged)
        assert_refused(codectok("inspect", shards), "shard-000000.tar is damaged")
    with tarfile.open(tar, "w") as written:
        for name in ("a.json", "b.json"):
            written.addfile(tarfile.TarInfo(name))
    assert_refused(codectok("inspect", shards), "shard-000000.tar is damaged")
    tar.unlink()
    assert_refused(codectok("inspect", shards), "shard-000000.tar is damaged")


def test_inspect_url_is_refused() -> None:
    assert_refused(codectok("inspect", "memory://bucket/shards"), "codectok verify")


def test_train_dry_run_writes_nothing(corpus: Path, tmp_path: Path) -> None:
    codectok("shard", corpus, tmp_path / "shards", "--engine", "local", "--max-rejects", 1)
    result = codectok("train", "nano", f"data.shards={tmp_path / 'shards'}", f"output={tmp_path / 'run'}", "--dry-run")
    assert result.exit_code == 0, result.output
    assert "segments" in result.stdout
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("text.wav", "audio file"),
        ("empty.wav", "empty file"),
        ("truncated.flac", "truncated.flac"),
        ("nan.wav", "not finite"),
        ("no-samples.wav", "no samples"),
        ("missing.wav", "missing.wav"),
    ],
)
@pytest.mark.parametrize("verb", ["encode", "reconstruct", "inspect"])
def test_unusable_file_is_refused(verb: str, name: str, word: str, codec: Path, corpus: Path, tmp_path: Path) -> None:
    if verb == "inspect":
        if name in ("truncated.flac", "nan.wav", "no-samples.wav"):
            assert codectok("inspect", corpus / name).exit_code == 0  # the header is sound
            return
        assert_refused(codectok("inspect", corpus / name), name)
        return
    output = tmp_path / ("out.npz" if verb == "encode" else "out.wav")
    assert_refused(codectok(verb, corpus / name, output, "--codec", codec), word)
    assert list(tmp_path.iterdir()) == []


def test_unusable_folder_is_refused(codec: Path, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("text")
    for verb, output in (("shard", "o"), ("tokenize", "o"), ("encode", "o.npz")):
        extra = [] if verb == "shard" else ["--codec", codec]
        assert_refused(codectok(verb, tmp_path / "nowhere", tmp_path / output, *extra), "no file or folder")
        assert_refused(codectok(verb, tmp_path / "notes", tmp_path / output, *extra), "There are no audio files")
    assert_refused(codectok("inspect", tmp_path / "notes"), "neither")
    assert [path.name for path in tmp_path.iterdir()] == ["notes"]


def test_existing_output_is_refused(codec: Path, corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "codes.npz").write_text("mine")
    assert_refused(codectok("encode", corpus, tmp_path / "codes.npz", "--codec", codec), "already exists")
    assert_refused(codectok("encode", corpus, tmp_path / "codes.zip", "--codec", codec), ".npz or .parquet")
    assert_refused(codectok("shard", corpus, tmp_path, "--engine", "local"), "holds other files")
    assert_refused(codectok("shard", corpus, tmp_path / "file", "--engine", "local"), "is a file")
    assert_refused(codectok("train", "nano", f"output={tmp_path}", "data.shards=x"), "holds no training run")
    assert (tmp_path / "codes.npz").read_text() == "mine"


def test_unusable_codec_is_refused(codec: Path, corpus: Path, tmp_path: Path) -> None:
    source, output = corpus / "a.wav", tmp_path / "out.npz"
    assert_refused(codectok("encode", source, output, "--codec", tmp_path / "no"), "no codec folder")
    assert_refused(codectok("encode", source, output, "--codec", "nano"), "preset without weights")
    assert_refused(codectok("encode", source, output, "--codec", corpus), "is not a codec", "g_00204000")
    assert_refused(codectok("encode", source, output, "--codec", f"{STUDENT}@4"), "holds no step 4")
    assert_refused(codectok("encode", source, output, "--codec", codec, "--dtype", "tf32", "--device", "cpu"), "tf32")
    assert_refused(codectok("encode", source, output, "--codec", codec, "--device", "quantum"), "quantum")
    codectok("encode", source, output, "--codec", codec)
    Codec.from_config("nano", seed=2).save_pretrained(tmp_path / "other")
    assert_refused(codectok("decode", output, tmp_path / "wav", "--codec", tmp_path / "other"), "another codec")


def test_unknown_and_invalid_settings_are_refused(tmp_path: Path) -> None:
    assert_refused(codectok("train", "nano", "stpes=3"), "unknown key 'stpes'", "did you mean 'steps'")
    assert_refused(codectok("train", "giant"), "shipped ones are")
    assert_refused(codectok("train", "nano", f"data.shards={tmp_path}", f"output={tmp_path / 'o'}"), "shards.json")
    assert_refused(codectok("shard", tmp_path, tmp_path / "o", "--min-seconds", 8), "at least twice")
    assert codectok("shard", tmp_path, tmp_path / "o", "--segmenter", "magic").exit_code == 2


@pytest.mark.parametrize(
    "command",
    [
        "encode {corpus}/b.flac {out}/codes.npz --codec {codec}",
        "encode {corpus}/b.flac {out}/codes.parquet --codec {codec}",
        "reconstruct {corpus}/b.flac {out}/b.wav --codec {codec}",
        "import-distilcodec {student} {out}/codec",
        "shard {corpus} {out}/shards --engine local",
    ],
    ids=lambda command: command.split()[0] + command.split()[2].removeprefix("{out}").replace("/", "-"),
)
def test_full_disk_is_one_sentence_and_leaves_no_file(command: str, codec: Path, corpus: Path, tmp_path: Path) -> None:
    arguments = command.format(corpus=corpus, codec=codec, out=tmp_path, student=STUDENT).split()

    def limit_file_size_to_500_bytes() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))

    result = subprocess.run(
        [sys.executable, "-m", "codectok", *arguments],
        preexec_fn=limit_file_size_to_500_bytes,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    assert one_line(result.stderr).startswith("Error: ")
    assert "Traceback" not in result.stderr
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
