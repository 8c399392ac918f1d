"""Makes the inputs of the commands."""

from __future__ import annotations

import csv
import gzip
import io
import json
import shutil
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

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
    """Make all inputs. Ogg files have new serial numbers each time, but the same samples."""
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
    """Return the first N recordings of a package, by name."""
    found = sorted(package.rglob(pattern))[:count]
    if len(found) < count:
        raise SystemExit(f"{package} holds too few recordings; scripts/recordings.sh prints the folder to give.")
    copies = [folder / path.parents[1].name / path.name for path in found]
    for path, copy in zip(found, copies, strict=True):
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    return copies


def tone(seconds: float, rate: int, frequency: float = 220.0, seed: int = 0) -> np.ndarray:
    """Return harmonics that swell about twice a second, with some noise: float32 [n]."""
    t = np.arange(round(seconds * rate)) / rate
    sound = sum(np.sin(2 * np.pi * frequency * k * t) / k for k in range(1, 6))
    swell = np.clip(np.sin(2 * np.pi * 0.9 * t + seed), 0, 1)
    noise = np.random.default_rng(seed).standard_normal(len(t))
    return np.asarray(0.2 * sound * swell + 0.003 * noise, np.float32)


def make_containers(folder: Path) -> None:
    """Write audio in many formats, and files that are not audio."""
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
    """Write one file for each reason to reject a file."""
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
    """Write real recordings in other containers: for patterns, as single files, and as duplicates."""
    for place, voice in (("pattern/one/wav/a.flac", 0), ("pattern/two/wav/deep/b.flac", 1), ("pattern/two/c.flac", 2),
                         ("single/talk.mp3", 4), ("twice/same.wav", 0), ("twice/below/same.flac", 0)):  # fmt: skip
        samples, rate = soundfile.read(voices[voice], dtype="float32")
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / place, samples, rate)


def make_speech(folder: Path, voices: Sequence[Path]) -> None:
    """Write recordings at the rate of the speech detector, and one that joins them with pauses."""
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
    """Write manifests as CSV, TSV and JSON lines, and cuts of lhotse."""
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
    """Return consecutive spans of one recording."""
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
    """Return a cut as lhotse writes it, with a supervision for each of `parts`, relative to its start."""
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
    """Write a plain, a compressed and a truncated tar, with text beside the audio, and unusable samples."""
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
    """Write a Parquet file as Hugging Face datasets do; one row has no audio."""
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
    """Write texts, and a template for documents."""
    folder.mkdir(parents=True)
    pages = [{"text": f"page {number}: {TEXTS[number % len(TEXTS)]} " * (1 + number % 7)} for number in range(60)]
    (folder / "books.jsonl").write_bytes(_lines([*pages, {"text": None}, {"title": "no text"}]))
    pq.write_table(pa.table({"text": [page["text"] for page in pages[::2]]}), folder / "pages.parquet")
    (folder / "song.yaml").write_text(SONG)


def make_models(folder: Path) -> None:
    """Write a tokenizer and tiny language models: one in several files, one with a tied output in bfloat16."""
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
    """Return a byte-level tokenizer with some merges and an end-of-text token."""
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
