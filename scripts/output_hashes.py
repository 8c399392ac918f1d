"""Runs every verb on one small corpus and prints the SHA-256 of everything that is written.

    python scripts/output_hashes.py OUT --recordings "$(bash scripts/recordings.sh)" > before.txt

A change that is to leave all outputs alone is proven by two such lists, from before and after it, that are equal. Only
the command line is used (`python -m codectok` in the folder OUT), so that the list does not depend on how the code is
laid out. Lists can be compared if they come from one machine with the same libraries: other processors round otherwise.

The list has the exit code of each command and a line for each file in OUT, its inputs and what commands printed aside.
What cannot be compared byte by byte stands in `RULES`, with the reason; nothing else is passed over.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import io
import json
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

ROOT = Path(__file__).resolve().parent.parent
INPUTS, LOGS = "inputs", "logs"
# Times of files stand in plans, and all files get this one.
FILE_TIME = 1_600_000_000
TIMEOUT_SECONDS = 900.0
PLACEHOLDER = b"OUT"
# Sums depend on the number of threads; bytecode lies aside, so that Python compiles everything once and not 80 times.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "0"}
NOT_INHERITED = ("PYTHONDONTWRITEBYTECODE", "RAY_ADDRESS", "RANK", "WORLD_SIZE", "LOCAL_RANK")


# What is hashed -------------------------------------------------------------------------------------------------------


def read_plan(path: Path, out: Path) -> Iterator[bytes]:
    """The bytes, with the place of OUT left open."""
    yield path.read_bytes().replace(os.fsencode(out), PLACEHOLDER)


def read_rejects(path: Path, out: Path) -> Iterator[bytes]:
    """Columns and rows of a table of rejects, without their messages."""
    table = pq.read_table(path)
    kept = table.drop_columns(["message"])
    yield f"{table.schema.names} {kept.schema}\n".encode()
    yield from (f"{row}\n".encode() for row in kept.to_pylist())


def read_record(path: Path, out: Path) -> Iterator[bytes]:
    """A unit's record, without size and hash of its rejects."""
    record = json.loads(path.read_bytes())
    for file in record["files"]:
        if "/rejects/" in file["name"]:
            del file["bytes"], file["sha256"]
    yield json.dumps(record, indent=2).encode()


def read_summary(path: Path, out: Path) -> Iterator[bytes]:
    """A job's summary; without the hash of its records, where these have the hashes of rejects."""
    summary = json.loads(path.read_bytes())
    if (path.parent / "rejects").is_dir():
        del summary["records"]
    yield json.dumps(summary, indent=2).encode()


def read_evaluation(path: Path, out: Path) -> Iterator[bytes]:
    """The report of an evaluation, without the messages of what could not be measured."""
    report = json.loads(path.read_bytes())
    for clip in report["unused"]:
        del clip["message"]
    yield json.dumps(report, indent=2).encode()


def read_training(path: Path, out: Path) -> Iterator[bytes]:
    """Names and values in a checkpoint of training, in the order of names."""
    import torch

    return _flattened(torch.load(path, map_location="cpu", weights_only=True), "")


def _flattened(value: Any, name: str) -> Iterator[bytes]:
    import torch

    if isinstance(value, torch.Tensor):
        yield f"{name} {value.dtype} {list(value.shape)}\n".encode()
        yield value.contiguous().flatten().view(torch.uint8).numpy().tobytes()
    elif isinstance(value, Mapping):
        for key in sorted(value, key=str):
            yield from _flattened(value[key], f"{name}/{key}")
    elif isinstance(value, list | tuple):
        yield f"{name} {len(value)}\n".encode()
        for number, item in enumerate(value):
            yield from _flattened(item, f"{name}/{number}")
    else:
        yield f"{name} {value!r}\n".encode()


def read_bytes(path: Path, out: Path) -> Iterator[bytes]:
    """All of a file."""
    yield path.read_bytes()


Read = Callable[[Path, Path], Iterator[bytes]]


@dataclass(frozen=True)
class Rule:
    """What is hashed of the files that match `pattern`: what `read` gives; None to say only that there are some."""

    pattern: str
    read: Read | None
    reason: str


RULES = (
    Rule("*/_codectok/plan.json", read_plan, "the folders of datasets are absolute"),
    Rule("*/_codectok/rejects/*.parquet", read_rejects, "messages are sentences, which may change"),
    Rule("*/_codectok/records/*.json", read_record, "size and hash of rejects are those of sentences"),
    Rule("*/_codectok/summary.json", read_summary, "so is the hash of records with rejects"),
    Rule("*/_codectok/report.html", None, "sentences"),
    Rule("*/_codectok/failures/*", None, "tracebacks"),
    Rule("clips/evaluation*.json", read_evaluation, "messages are sentences"),
    Rule("train/*/training.pt", read_training, "an archive; what counts are its values by their names"),
    Rule("train/*/tensorboard/*", None, "times, host and process, also in the names of files"),
    Rule("train/*/ray/*", None, "what Ray notes for itself, with times"),
)
EVERYTHING = Rule("*", read_bytes, "")
# Listed apart: text for people, which may change.
FOR_PEOPLE = ("*/README.md",)


def rule_of(name: str) -> Rule:
    """The first rule for the file of this name."""
    return next((rule for rule in RULES if fnmatch(name, rule.pattern)), EVERYTHING)


def listed(out: Path) -> tuple[list[str], list[str]]:
    """The lines for all files that commands have written, and those for texts that may change."""
    lines: list[str] = []
    for_people: list[str] = []
    unread = set()
    for path in sorted(path for path in out.rglob("*") if path.is_file()):
        name = path.relative_to(out).as_posix()
        rule = rule_of(name)
        if name.split("/")[0] in (INPUTS, LOGS):
            continue
        if rule.read is None:
            unread.add(_place_of(name, rule))
            continue
        texts = any(fnmatch(name, pattern) for pattern in FOR_PEOPLE)
        (for_people if texts else lines).append(f"{_sha256(rule.read(path, out))}  {name}")
    lines += [f"{'present':64}  {place}" for place in unread]
    return sorted(lines, key=lambda line: line[66:]), for_people


def _place_of(name: str, rule: Rule) -> str:
    """Where a file lies that is not read: itself, or the folder of files whose names vary."""
    if not rule.pattern.endswith("/*"):
        return name
    folder = rule.pattern.removesuffix("/*").rpartition("*")[2] + "/"
    return name[: name.index(folder) + len(folder)]


def _sha256(blocks: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for block in blocks:
        digest.update(block)
    return digest.hexdigest()


# Commands -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Command:
    """A command line without `codectok`, and the exit code that it is to have."""

    line: str
    expected: int = 0


@dataclass(frozen=True)
class Stage:
    """Chains of commands; those of a chain follow each other, and chains run beside each other.

    Attributes:
        needs: stages that must have run.
    """

    chains: Sequence[Sequence[Command]]
    needs: tuple[str, ...] = ()


def chain(lines: str, expected: int = 0) -> list[Command]:
    """A command for each line."""
    return [Command(line.strip(), expected) for line in lines.strip().splitlines() if line.strip()]


def each(lines: str, expected: int = 0) -> list[list[Command]]:
    """A chain of its own for each line."""
    return [[command] for command in chain(lines, expected)]


LOCAL = "--engine local --max-rejects 1"
EVERY_SOURCE = (
    "voices=inputs/voices inputs/letters inputs/made inputs/broken inputs/single/talk.mp3"
    " 'inputs/pattern/*/wav/**/*.flac' inputs/lists/recordings.csv inputs/lists/stretches.jsonl inputs/lists/tab.tsv.gz"
    " inputs/lists/cuts.jsonl.gz inputs/tars inputs/parquet"
)
SOME_SOURCES = "inputs/voices inputs/letters inputs/lists/stretches.jsonl"
TINY = (
    "codec={} codec.name=tiny codec.mel.n_mels=40 codec.encoder.depths=[2] codec.encoder.dims=[16]"
    " codec.encoder.drop_path_rate=0.2 codec.decoder.initial_channels=8 codec.decoder.upsample_rates=[16,16]"
    " codec.decoder.upsample_kernel_sizes=[16,16] codec.decoder.resblock_kernel_sizes=[3]"
    " codec.decoder.resblock_dilations=[[1]]"
)
GROUPED = (
    "codec.quantizer.type=grvq codec.quantizer.codebook_size=32 codec.quantizer.codebook_dim=8"
    " codec.quantizer.n_groups=2 codec.quantizer.n_residuals=2 codec.quantizer.time_factors=[2]"
)
SHORT = "device=cpu data.segment_seconds=0.256 data.batch_size=4 log_interval=2 discriminators.start_step=3 steps=6"
SHARDS = "data.shards=shard/by-speech"
JUDGED = "'validation={shards: shard/by-speech, interval: 10, clips: 3, max_seconds: 2, listen: 1}'"
NANO = (
    f"train nano output=train/nano {SHARDS} {JUDGED} device=cpu seed=7 data.segment_seconds=0.32 data.batch_size=4"
    " data.num_workers=1 log_interval=5 checkpoint_interval=6 keep_checkpoints=2 discriminators.start_step=8"
)
MIXED = (
    "'data={sources: [{shards: shard/by-speech, weight: 2}, {shards: shard/everything, category: sea, weight: 1}],"
    " segment_seconds: 0.256, batch_size: 4}'"
)
STUDENT, TEACHER = "--codec import/student --device cpu", "--codec import/teacher --device cpu"
TOKENIZER, MODEL = "--tokenizer inputs/models/tokenizer", "--model inputs/models/language"
TALKS = "tokenize/talks"

STAGES = {
    "import": Stage(
        each("""
            import-distilcodec inputs/golden/student import/student
            import-distilcodec inputs/golden/teacher import/teacher --step 42
        """)
    ),
    "shard": Stage(
        [
            chain(f"""
                shard {EVERY_SOURCE} shard/everything --shard-seconds 60 --limit 2 {LOCAL}
                shard {EVERY_SOURCE} shard/everything --shard-seconds 60 {LOCAL}
                shard {EVERY_SOURCE} shard/everything --shard-seconds 60 {LOCAL}
            """),
            chain(f"""
                shard {SOME_SOURCES} shard/grown --min-seconds 1 --max-seconds 4 --validation 0.2 {LOCAL}
                shard {SOME_SOURCES} inputs/pattern shard/grown --min-seconds 1 --max-seconds 4 --validation 0.2 \
--extend {LOCAL}
                shard {SOME_SOURCES} shard/parts --shard-seconds 20 --part 2/2 {LOCAL}
                shard {SOME_SOURCES} shard/parts --shard-seconds 20 --part 1/2 {LOCAL}
            """),
            chain(f"""
                shard {EVERY_SOURCE} inputs/twice shard/unique --deduplicate --shard-seconds 100 {LOCAL}
                shard {EVERY_SOURCE} shard/limited --segmenter fixed --format wav --sample-rate 16000 --max-seconds 3 \
--min-loudness -40 --max-loudness -1 --max-clipping 0.01 --min-bandwidth 5000 {LOCAL}
                shard {SOME_SOURCES} shard/preview --dry-run {LOCAL}
            """),
            chain(f"""
                shard inputs/speech shard/by-speech --segmenter vad --min-seconds 1 --validation 0.3 \
--shard-seconds 40 {LOCAL}
                shard {EVERY_SOURCE} shard/by-workers --shard-seconds 60 --workers 2 --max-rejects 1
            """),
        ]
    ),
    "train": Stage(
        [
            chain(f"{NANO} steps=13\n{NANO} steps=20"),
            chain(f"""
                train nano output=train/grouped {SHARDS} {TINY} {GROUPED} {SHORT} accumulation=2 weight_average=0.9 \
loss.waveform=1.0 loss.diversity=0.1
                train nano output=train/simvq {MIXED} {TINY} device=cpu steps=6 log_interval=2 precision=bfloat16 \
'codec.quantizer={{type: simvq, codebook_size: 64, codebook_dim: 16}}' init_from=train/grouped/codec loss.distillation=1
                train nano output=train/fsq {SHARDS} {TINY} {SHORT} 'codec.quantizer={{type: fsq, levels: [5, 4, 3]}}'
                train nano output=train/resumed {SHARDS} {TINY} 'codec.quantizer={{type: fsq, levels: [5, 4, 3]}}' \
{SHORT} steps=8 resume_from=train/fsq/checkpoints/step-00000006 generator_optimizer.learning_rate=1e-4
                train inputs/configs/stages.yaml output=train/stages {SHARDS}
                train nano output=train/ranks {SHARDS} {TINY} {GROUPED} {SHORT} --engine ray --workers 2
            """),
        ],
        needs=("shard",),
    ),
    "tokenize": Stage(
        [
            chain(f"""
                tokenize shard/everything tokenize/shards {STUDENT} --part-seconds 60 --limit 1 {LOCAL}
                tokenize shard/everything tokenize/shards {STUDENT} --part-seconds 60 {LOCAL}
                tokenize inputs/made inputs/voices tokenize/slices {TEACHER} --max-seconds 2.5 --dtype bfloat16 {LOCAL}
                tokenize {EVERY_SOURCE} tokenize/by-workers {STUDENT} --part-seconds 60 --workers 2 --max-rejects 1
            """),
            chain(f"""
                tokenize {EVERY_SOURCE} tokenize/everything {TEACHER} --part-seconds 60 --max-seconds 4 {LOCAL}
                tokenize inputs/lists/recordings.csv {TALKS} {STUDENT} --part-seconds 30 {LOCAL}
                tokenize inputs/lists/recordings.csv inputs/lists/cuts.jsonl.gz {TALKS} {STUDENT} --part-seconds 30 \
--extend {LOCAL}
                tokenize inputs/letters tokenize/packed {STUDENT} --pack-frames 300 --encoder-threads 2 {LOCAL}
            """),
        ],
        needs=("import", "shard"),
    ),
    "clips": Stage(
        [
            chain(f"""
                encode inputs/voices inputs/made/tone.wav inputs/broken/text.wav clips/student.npz {STUDENT}
                decode clips/student.npz clips/from-npz {STUDENT}
                encode inputs/letters inputs/single/talk.mp3 clips/teacher.parquet {TEACHER}
                decode clips/teacher.parquet clips/from-parquet {TEACHER}
                reconstruct inputs/single/talk.mp3 clips/again.wav {TEACHER}
            """),
            chain(f"""
                decode {TALKS} clips/from-table {STUDENT} --where "duration > 3 and language == 'nl'"
                reconstruct inputs/made/sweep.opus clips/again.flac {STUDENT} --dtype bfloat16
                evaluate inputs/voices inputs/broken {TEACHER} --out clips/evaluation.json
                evaluate {EVERY_SOURCE} {STUDENT} --limit 20 --max-seconds 1.5 --out clips/evaluation
            """),
        ],
        needs=("import", "tokenize"),
    ),
    "trained": Stage(
        [
            chain("encode inputs/voices trained/nano.npz --codec train/nano/codec --device cpu"),
            chain("""
                encode inputs/letters trained/grouped.npz --codec train/grouped/codec --device cpu
                encode inputs/letters trained/simvq.npz --codec train/simvq/codec --device cpu
                decode trained/grouped.npz trained/decoded --codec train/grouped/codec --device cpu
            """),
        ],
        needs=("train",),
    ),
    "export": Stage(
        [
            chain(f"""
                export vocabulary import/teacher export/vocabulary-of-codec
                export vocabulary {TALKS} export/vocabulary-of-table {MODEL} {TOKENIZER}
                export tokenizer inputs/models/tokenizer export/tokenizer --codec import/student {MODEL}
                export language-model inputs/models/language export/language --codec import/student
                export language-model inputs/models/language export/codebook --codec import/student --offset 600 \
--start codebook --scale rms
                export language-model inputs/models/tied export/tied --codec import/teacher --start random --seed 3
                export language-model inputs/models/tied export/projected --codec import/teacher --scale 7.5
                export sequences {TALKS} export/with-extended --tokenizer export/language --task asr {LOCAL}
            """),
            chain(f"""
                export compact tokenize/shards export/compact --file-megabytes 0.02 --group-megabytes 0.001 {LOCAL}
                export huggingface export/compact
                export unitts {TALKS} export/unitts --task tts {MODEL} {LOCAL}
                export unitts {TALKS} tokenize/shards export/unitts-asr --task asr --part-megabytes 0.01 {LOCAL}
                export unitts tokenize/everything export/unitts-audio --task audio --style audio-json {LOCAL}
            """),
            chain(f"""
                export sequences tokenize/everything export/audio --offset 1000 --eos 7 --part-megabytes 0.02 {LOCAL}
                export sequences {TALKS} export/packed --task tts {TOKENIZER} --packing first-fit --length 512 \
--too-long truncate {LOCAL}
                export sequences {TALKS} export/interleaved --task interleaved {TOKENIZER} {MODEL} --packing next-fit \
--length 700 --too-long split --part-megabytes 0.01 {LOCAL}
                export sequences {TALKS} export/voices --task tts --voice speaker {TOKENIZER} --length 800 {LOCAL}
                export sequences {TALKS} sound=tokenize/shards export/mixed --task inputs/texts/song.yaml \
--task sound=audio {TOKENIZER} --text inputs/texts/books.jsonl --text pages=inputs/texts/pages.parquet \
--weight talks=1 --weight sound=1.5 --weight books=1 --weight pages=0.5 --until last {LOCAL}
            """),
            chain(f"""
                export megatron {TALKS} export/megatron --task tts {TOKENIZER} {MODEL} --packing next-fit --length 600 \
--too-long keep {LOCAL}
                export megatron {TALKS} export/megatron-asr --task asr {TOKENIZER} --part-megabytes 0.01 {LOCAL}
                export megatron {TALKS} export/megatron-by-workers --task asr {TOKENIZER} --part-megabytes 0.01 \
--workers 2
            """),
        ],
        needs=("import", "tokenize"),
    ),
    "verify": Stage(
        [
            chain(f"""
                verify shard/everything
                verify shard/unique
                verify shard/limited
                verify tokenize/shards {STUDENT} --reencode 4 --decode 2 --to verify/shards
                verify tokenize/everything {TEACHER} --reencode 4 --decode 2 --to verify/everything --seed 1
                verify {TALKS} {STUDENT} --reencode 3
            """),
            chain(f"""
                verify export/compact
                verify export/unitts-audio
                verify export/mixed
                verify export/megatron
                inspect import/teacher
                inspect shard/everything
                inspect {TALKS}
                inspect inputs/made/chirp.ogg
                inspect clips/student.npz
            """),
        ],
        needs=("shard", "tokenize", "clips", "export"),
    ),
    "refuse": Stage(
        [
            chain(
                f"""
                shard inputs/voices shard/everything {LOCAL}
                shard inputs/nowhere refuse/nothing {LOCAL}
                shard inputs/voices refuse/nothing --min-seconds 9 {LOCAL}
                tokenize inputs/voices refuse/nothing --codec inputs/voices {LOCAL}
                tokenize inputs/letters tokenize/packed {TEACHER} {LOCAL}
                train nano data.shards=inputs/voices output=refuse/nothing
                train nano data.shards=shard/grown output=refuse/nothing no_such_key=1
                """,
                expected=2,
            ),
            chain(
                f"""
                encode inputs/voices refuse/nothing.txt {STUDENT}
                decode clips/student.npz refuse/nothing {TEACHER}
                reconstruct inputs/made/tone.wav refuse/nothing.mp3 {STUDENT}
                evaluate inputs/voices {STUDENT} --out clips/evaluation.json
                export sequences {TALKS} refuse/nothing --task tts {LOCAL}
                export language-model export/language refuse/nothing --codec import/student
                export huggingface export/compact
                verify inputs/voices
                import-distilcodec inputs/voices refuse/nothing
                """,
                expected=2,
            ),
            [
                *chain("shard inputs/broken refuse/broken --engine local", expected=1),
                *chain("tokenize inputs/broken refuse/broken-rows --codec import/student --engine local", expected=1),
                *chain("shard inputs/texts refuse/no-audio --engine local", expected=1),
                *chain("encode inputs/broken/text.wav refuse/nothing.npz --codec import/student", expected=2),
                *chain("shard --no-such-option", expected=2),
            ],
        ],
        needs=("shard", "tokenize", "clips", "export"),
    ),
}


class Runner:
    """Runs stages in the folder `out`, as many chains at once as `jobs` says, and remembers exit codes."""

    def __init__(self, out: Path, jobs: int, bytecode: str) -> None:
        self._out, self._jobs = out, jobs
        inherited = {name: value for name, value in os.environ.items() if name not in NOT_INHERITED}
        self._environment = {**inherited, **ENVIRONMENT, "PYTHONPYCACHEPREFIX": bytecode}
        self.exits: list[tuple[Command, int]] = []
        (out / LOGS).mkdir()

    def run(self, name: str, stage: Stage) -> None:
        """Run all chains of a stage, then give its files their time."""
        names = [f"{name}-{number}" for number in range(len(stage.chains))]
        with ThreadPoolExecutor(self._jobs) as pool:
            codes = list(pool.map(self._chain, names, stage.chains))
        for commands, found in zip(stage.chains, codes, strict=True):
            self.exits += zip(commands, found, strict=True)
        set_times(self._out)

    def _chain(self, name: str, commands: Sequence[Command]) -> list[int]:
        return [self._command(f"{name}-{number}", command) for number, command in enumerate(commands)]

    def _command(self, name: str, command: Command) -> int:
        started = time.monotonic()
        line = [sys.executable, "-m", "codectok", *shlex.split(command.line)]
        with (self._out / LOGS / f"{name}.txt").open("wb") as log:
            done = subprocess.run(
                line, cwd=self._out, env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                timeout=TIMEOUT_SECONDS, check=False,
            )  # fmt: skip
        note(f"{name}: exit {done.returncode} after {time.monotonic() - started:.1f} s: {command.line[:90]}")
        return done.returncode


def set_times(folder: Path) -> None:
    """Give all files of a folder the same time."""
    for path in folder.rglob("*"):
        if path.is_file():
            os.utime(path, (FILE_TIME, FILE_TIME))


def note(text: str) -> None:
    """A line on standard error, which is no part of the list."""
    sys.stderr.write(f"{text}\n")


# Inputs ---------------------------------------------------------------------------------------------------------------

RATE, SPEECH_RATE = 24_000, 16_000
TEXTS = ("hello world", "say hello to the sea", "words of the world", "hello <|endoftext|> again", "één wereld in zee")
STRETCHES: list[dict[str, Any]] = [
    {"audio_filepath": "../made/long.flac", "offset": 0.0, "duration": 1.0, "text": "one", "lang": "en"},
    {"audio_filepath": "../made/long.flac", "offset": 1.5, "duration": 0.9, "text": "two", "lang": "en"},
    {"path": "../made/long.flac", "start": 4.0, "end": 18.0, "text": "too long for one segment"},
    {"path": "../made/long.flac", "start": 18.5, "end": 30.0, "category": "sea"},
    {"path": "../made/long.flac", "start": 31.0, "end": 40.0, "text": "more than there is"},
    {"path": "../made/chirp.ogg", "category": "sea", "id": 12},
    {"path": "gone.wav", "start": 0, "end": 4},
]
SONG = """\
begin:
  - text: "Say in {language}: "
row:
  - text: "{text}"
  - token: <|beginofaudio|>
  - codes: row
  - token: <|endofaudio|>
end:
  - token: eos
"""
STAGES_OF_TRAINING = """\
codec:
  name: tiny
  mel: {n_mels: 40}
  encoder: {depths: [2], dims: [16], drop_path_rate: 0.2}
  decoder:
    initial_channels: 8
    upsample_rates: [16, 16]
    upsample_kernel_sizes: [16, 16]
    resblock_kernel_sizes: [3]
    resblock_dilations: [[1]]
data: {segment_seconds: 0.256, batch_size: 4}
discriminators: {start_step: 2}
device: cpu
steps: 4
stages:
  teacher:
    base: nano
    codec: {quantizer: {type: grvq, n_groups: 2, n_residuals: 2, codebook_size: 32, codebook_dim: 8}}
  student:
    base: nano
    codec: {quantizer: {type: grvq, codebook_size: 64, codebook_dim: 16}}
    loss: {distillation: 0.5}
"""
# A tokenizer of bytes and a few words, with more rows in the model's embedding than it has tokens.
END_OF_TEXT, MERGES, ROWS = "<|endoftext|>", ("h e", "l l", "he ll", "hell o", "w o", "wo r", "Ġ t", "Ġt he"), 320


def make_inputs(folder: Path, recordings: Path, golden: Path) -> None:
    """All that commands read; files of Ogg have serial numbers of their own each time, and the same sound."""
    shutil.copytree(golden, folder / "golden")
    voices = copy_recordings(recordings / "fillets-ng-data-nl", folder / "voices", 8)
    copy_recordings(recordings / "klettres-data", folder / "letters", 4)
    copy_recordings(recordings / "klettres-data", folder / "letters", 2, "cs/*/*.ogg")
    (folder / "voices" / "notes.txt").write_text("no audio")
    make_containers(folder / "made")
    make_unusable(folder / "broken")
    make_transcoded(folder, voices)
    make_speech(folder / "speech", voices)
    make_lists(folder, voices)
    make_tars(folder / "tars", voices)
    make_parquet(folder / "parquet" / "train.parquet", voices)
    make_texts(folder / "texts")
    make_models(folder / "models")
    (folder / "configs").mkdir()
    (folder / "configs" / "stages.yaml").write_text(STAGES_OF_TRAINING)


def copy_recordings(package: Path, folder: Path, count: int, pattern: str = "*.ogg") -> list[Path]:
    """The first so many recordings of a package, by name."""
    found = sorted(package.rglob(pattern))[:count]
    if len(found) < count:
        raise SystemExit(f"{package} holds too few recordings; scripts/recordings.sh prints the folder to give.")
    copies = [folder / path.parents[1].name / path.name for path in found]
    for path, copy in zip(found, copies, strict=True):
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    return copies


def tone(seconds: float, rate: int, frequency: float = 220.0, seed: int = 0) -> np.ndarray:
    """Harmonics that swell about twice a second, with some noise: float32 [n]."""
    t = np.arange(round(seconds * rate)) / rate
    sound = sum(np.sin(2 * np.pi * frequency * k * t) / k for k in range(1, 6))
    swell = np.clip(np.sin(2 * np.pi * 0.9 * t + seed), 0, 1)
    noise = np.random.default_rng(seed).standard_normal(len(t))
    return np.asarray(0.2 * sound * swell + 0.003 * noise, np.float32)


def make_containers(folder: Path) -> None:
    """Sounds in many forms, and files beside them that are none."""
    folder.mkdir(parents=True)
    stereo = np.stack([tone(4.0, 48_000), tone(4.0, 48_000, 330.0)], axis=1)
    sounds: list[tuple[str, np.ndarray, int, str | None, str | None]] = [
        ("tone.wav", tone(5.0, RATE), RATE, None, "PCM_16"),
        ("stereo.flac", stereo, 48_000, None, "PCM_24"),
        ("chirp.ogg", tone(6.5, 22_050, 440.0, 1), 22_050, None, None),
        ("pulses.mp3", tone(7.0, 44_100, 110.0, 2), 44_100, None, None),
        ("sweep.opus", tone(3.5, 48_000, 300.0, 3), 48_000, "OGG", "OPUS"),
        ("float.wav", tone(3.0, 16_000, 250.0, 4), 16_000, None, "FLOAT"),
        ("telephone.wav", tone(4.0, 8_000, 200.0, 5), 8_000, None, "PCM_U8"),
        ("tone.aiff", tone(2.5, 32_000, 180.0, 6), 32_000, None, None),
        ("long.flac", tone(33.0, 16_000, 150.0, 7), 16_000, None, None),
        ("take-7", tone(3.0, RATE, 260.0, 8), RATE, "WAV", "PCM_16"),
    ]
    for name, samples, rate, container, subtype in sounds:
        soundfile.write(folder / name, samples, rate, format=container, subtype=subtype)
    (folder / "measurements.dat").write_bytes(bytes(range(256)) * 20)
    (folder / "cover.png").write_bytes(b"no audio")
    (folder / ".hidden.wav").write_text("never looked at")


def make_unusable(folder: Path) -> None:
    """One file of each sort that cannot be used, or is not wanted."""
    folder.mkdir(parents=True)
    (folder / "text.wav").write_text("this is text")
    (folder / "nothing.wav").write_bytes(b"")
    (folder / "film.m4a").write_bytes(b"\0\0\0\x18ftypM4A " + bytes(64))
    for name, samples in (
        ("no-samples.wav", tone(0.0, RATE)),
        ("short.wav", tone(0.3, RATE)),
        ("silent.wav", np.zeros(3 * RATE, np.float32)),
        ("loud.wav", np.clip(20 * tone(3.0, RATE), -1, 1)),
    ):
        soundfile.write(folder / name, samples, RATE)
    not_finite = tone(3.0, RATE)
    not_finite[30_000] = np.nan
    soundfile.write(folder / "not-finite.wav", not_finite, RATE, subtype="FLOAT")
    for suffix in ("wav", "flac"):
        path = folder / f"cut-off.{suffix}"
        soundfile.write(path, tone(6.0, RATE), RATE)
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def make_transcoded(folder: Path, voices: Sequence[Path]) -> None:
    """Real recordings in other containers: for patterns, as a file alone, and twice."""
    for place, voice in (("pattern/one/wav/a.flac", 0), ("pattern/two/wav/deep/b.flac", 1), ("pattern/two/c.flac", 2),
                         ("single/talk.mp3", 4), ("twice/same.wav", 0), ("twice/below/same.flac", 0)):  # fmt: skip
        samples, rate = soundfile.read(voices[voice], dtype="float32")
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / place, samples, rate)


def make_speech(folder: Path, voices: Sequence[Path]) -> None:
    """Recordings at the rate at which speech is looked for, and one of all of them with pauses between."""
    folder.mkdir()
    pause = np.zeros(SPEECH_RATE * 2, np.float32)
    together = [pause]
    for number, path in enumerate(voices):
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
        places = np.arange(len(samples) * SPEECH_RATE // rate) * (rate / SPEECH_RATE)
        speech = np.interp(places, np.arange(len(samples)), samples.mean(axis=1)).astype(np.float32)
        soundfile.write(folder / f"{number}.flac", speech, SPEECH_RATE)
        together += [speech, pause]
    soundfile.write(folder / "together.flac", np.concatenate(together), SPEECH_RATE)


def make_lists(folder: Path, voices: Sequence[Path]) -> None:
    """Manifests as tables and as lines of JSON, and cuts of lhotse."""
    lists = folder / "lists"
    lists.mkdir()
    rows: list[dict[str, Any]] = [
        {
            "path": f"../voices/{path.parent.name}/{path.name}",
            "id": f"voice-{number}",
            "text": TEXTS[number % len(TEXTS)],
            "language": "nl",
            "speaker": ("ann", "bob")[number % 2],
            "category": ("sea", "air", "")[number % 3],
        }
        for number, path in enumerate(voices)
    ]
    rows[5] |= {"text": "", "speaker": ""}
    (lists / "recordings.csv").write_bytes(_table([*rows, *_chapters()], ","))
    tones = [{"path": "../made/tone.wav", "start": 1, "end": 3.5, "text": "a tone"}]
    (lists / "tab.tsv.gz").write_bytes(_packed(_table(tones, "\t")))
    (lists / "stretches.jsonl").write_bytes(_lines(STRETCHES))
    cuts = [_cut("cut-0", 0.0, [(0.0, 3.0)]), _cut("cut-1", 4.0, [(0.2, 2.5)])]
    # Too long, but with pauses at which it may be cut.
    cuts.append(_cut("cut-2", 9.0, [(0.0, 4.0), (4.5, 9.0), (9.5, 14.0)]))
    (lists / "cuts.jsonl.gz").write_bytes(_packed(_lines(cuts)))


def _chapters() -> list[dict[str, Any]]:
    """Stretches of one recording that follow each other."""
    return [
        {
            "path": "../made/long.flac",
            "start": 2.5 * number,
            "end": 2.5 * (number + 1),
            "id": f"chapter-{number}",
            "text": f"{TEXTS[number % 3]} {number}",
            "language": "en",
            "speaker": "cy",
        }
        for number in range(8)
    ]


def _cut(name: str, start: float, parts: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """A cut as lhotse writes it, with words in each of `parts`, which count from its start on."""
    supervisions = [
        {
            "id": f"{name}-{number}",
            "recording_id": "long",
            "start": first,
            "duration": last - first,
            "channel": 0,
            "text": f"part {number} of {name}",
            "language": "en",
            "speaker": "dee",
        }
        for number, (first, last) in enumerate(parts)
    ]
    source = {"type": "file", "channels": [0], "source": "../made/long.flac"}
    recording = {"id": "long", "sources": [source], "sampling_rate": 16_000, "num_samples": 528_000, "duration": 33.0}
    cut = {"id": name, "start": start, "duration": parts[-1][1] + 0.1, "channel": 0, "type": "MonoCut"}
    return {**cut, "supervisions": supervisions, "recording": recording}


def _table(rows: Sequence[Mapping[str, Any]], delimiter: str) -> bytes:
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, list(dict.fromkeys(name for row in rows for name in row)), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue().encode()


def _lines(rows: Iterable[Mapping[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def make_tars(folder: Path, voices: Sequence[Path]) -> None:
    """A plain tar, a packed one and one that is cut off, with text beside the audio, and samples of no use."""
    folder.mkdir(parents=True)
    members: list[tuple[str, bytes]] = []
    for number, path in enumerate(voices[:4]):
        described = json.dumps({"transcription": TEXTS[number], "lang": "nl", "speaker_id": number})
        beside = (".json", described) if number % 2 else (".txt", TEXTS[number])
        members += [(f"set/{number}.ogg", path.read_bytes()), (f"set/{number}{beside[0]}", beside[1].encode())]
    members += [("set/two.ogg", voices[0].read_bytes()), ("set/two.wav", b""), ("set/none.txt", b"no audio")]
    members += [("set/bad.flac", b"this is text")]
    data = _tar(members)
    (folder / "voices.tar").write_bytes(data)
    (folder / "cut-off.tar").write_bytes(data[: len(data) // 2])
    (folder / "packed.tar.gz").write_bytes(_packed(_tar((path.name, path.read_bytes()) for path in voices[6:8])))


def _tar(members: Iterable[tuple[str, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)  # time and owner are 0
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def _packed(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def make_parquet(path: Path, voices: Sequence[Path]) -> None:
    """A table as Hugging Face datasets write them; one row has no audio."""
    path.parent.mkdir(parents=True)
    audio: list[dict[str, Any]] = [{"bytes": voice.read_bytes(), "path": voice.name} for voice in voices[2:6]]
    audio += [{"bytes": None, "path": None}, {"bytes": b"this is text", "path": "text.wav"}]
    table = pa.table({
        "audio": pa.array(audio, pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        "sentence": [TEXTS[number % len(TEXTS)] for number in range(len(audio))],
        "speaker_id": [number % 2 for number in range(len(audio))],
    })  # fmt: skip
    pq.write_table(table, path, row_group_size=2)


def make_texts(folder: Path) -> None:
    """Texts beside the tables, and a template for documents."""
    folder.mkdir(parents=True)
    pages = [{"text": f"page {number}: {TEXTS[number % len(TEXTS)]} " * (1 + number % 7)} for number in range(60)]
    (folder / "books.jsonl").write_bytes(_lines([*pages, {"text": None}, {"title": "no text"}]))
    pq.write_table(pa.table({"text": [page["text"] for page in pages[::2]]}), folder / "pages.parquet")
    (folder / "song.yaml").write_text(SONG)


def make_models(folder: Path) -> None:
    """A tokenizer, and tiny language models: one in several files, and one with a tied output in bfloat16."""
    import torch
    from transformers import AutoModelForCausalLM, Qwen2Config

    save_tokenizer(folder / "tokenizer")
    auto: Any = AutoModelForCausalLM
    settings: dict[str, Any] = {
        **{"vocab_size": ROWS, "hidden_size": 72, "intermediate_size": 144, "num_hidden_layers": 2},
        **{"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 1024},
        **{"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0},
    }
    for name, tied, dtype in (("language", False, torch.float32), ("tied", True, torch.bfloat16)):
        torch.manual_seed(0)
        model = auto.from_config(Qwen2Config(**settings, tie_word_embeddings=tied)).to(dtype)
        model.save_pretrained(folder / name, max_shard_size="100KB" if name == "language" else "1GB")
        save_tokenizer(folder / name)


def save_tokenizer(folder: Path) -> None:
    """Bytes, some merges, and a token that ends a text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = [END_OF_TEXT, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    merges = [(first, second) for first, second in (merge.split() for merge in MERGES)]
    words += [first + second for first, second in merges]
    tokenizer = Tokenizer(models.BPE({word: number for number, word in enumerate(words)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    wrapped: Any = PreTrainedTokenizerFast
    wrapped(tokenizer_object=tokenizer, eos_token=END_OF_TEXT).save_pretrained(folder)


# The command ----------------------------------------------------------------------------------------------------------


def with_needed(names: Iterable[str]) -> list[str]:
    """Stages and all that they need, in their order."""
    wanted: set[str] = set()

    def want(name: str) -> None:
        wanted.add(name)
        for needed in STAGES[name].needs:
            want(needed)

    for name in names:
        want(name)
    return [name for name in STAGES if name in wanted]


def parsed_arguments() -> argparse.Namespace:
    """The command line of this script."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path, help="a folder that is new or empty")
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    parser.add_argument(
        "--recordings", type=Path, default=cache / "codectok" / "demo-audio", help="what scripts/recordings.sh prints"
    )
    parser.add_argument(
        "--golden", type=Path, default=ROOT / "tests" / "data" / "golden", help="small checkpoints of DistilCodec"
    )
    parser.add_argument("--only", default=",".join(STAGES), help="stages, with commas; what they need runs as well")
    parser.add_argument("--jobs", type=int, default=2, help="commands that run at once")
    arguments = parser.parse_args()
    unknown = set(arguments.only.split(",")) - set(STAGES)
    if unknown:
        parser.error(f"there is no stage {', '.join(sorted(unknown))}; there are {', '.join(STAGES)}")
    if arguments.out.exists() and any(arguments.out.iterdir()):
        parser.error(f"{arguments.out} holds something already")
    return arguments


def main() -> int:
    """Run the stages and print the list; 1 if an exit code is not the one that was expected."""
    arguments = parsed_arguments()
    out = arguments.out.resolve()
    make_inputs(out / INPUTS, arguments.recordings, arguments.golden)
    set_times(out)
    with tempfile.TemporaryDirectory() as bytecode:
        runner = Runner(out, arguments.jobs, bytecode)
        for name in with_needed(arguments.only.split(",")):
            runner.run(name, STAGES[name])
    lines, for_people = listed(out)
    exits = [f"exit {code}  codectok {' '.join(command.line.split())}" for command, code in runner.exits]
    texts = ["# Text for people, which may change", *for_people]
    sys.stdout.write("\n".join(["# Commands", *exits, "# Files", *lines, *texts]) + "\n")
    surprises = [command for command, code in runner.exits if code != command.expected]
    for command in surprises:
        note(f"Unexpected exit code: codectok {command.line}")
    return 1 if surprises else 0


if __name__ == "__main__":
    sys.exit(main())
