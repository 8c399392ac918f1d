"""Kinds of sources with samples: a damaged one must not change the rows of its good neighbours."""

from __future__ import annotations

import io
import json
import random
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

from .children import CASE, codectok
from .mutations import NUMBERS, TEXTS, VALUES, damage_bytes, damage_json
from .parquet import damage_table

RATE = 24_000
N_SAMPLES = 8
Rows = dict[tuple[str, float], tuple[str | None, bytes]]
"""Text and content of each row of an output, by its source and start."""


def wave(number: int, seconds: float = 0.3) -> bytes:
    """A WAV file with a tone of a frequency that belongs to `number`."""
    t = np.arange(round(seconds * RATE)) / RATE
    buffer = io.BytesIO()
    soundfile.write(buffer, 0.3 * np.sin(2 * np.pi * (200 + 37 * number) * t) * (1 + t), RATE, format="WAV")
    return buffer.getvalue()


def rows_of(output: Path) -> Rows:
    """Read the rows of a token table or of shards."""
    rows: Rows = {}
    for part in sorted(output.glob("*.parquet")):
        for row in pq.read_table(part).to_pylist():
            rows[row["source"], row["start"]] = (row["text"], np.array(row["codes"]).tobytes())
    for shard in sorted(output.glob("*.tar")):
        with tarfile.open(shard) as tar:
            members = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
        for name, data in members.items():
            if name.endswith(".json"):
                described = json.loads(data)
                content = members[name.removesuffix("json") + "flac"]
                rows[described["source"], described["start"]] = (described.get("text"), content)
    return rows


class SampleKind(ABC):
    """A kind of source; each of its samples has the text "sample N".

    Attributes:
        name: of the kind.
        may_refuse: True if the command may refuse a damaged source as a whole.
    """

    name: str
    may_refuse = False

    @abstractmethod
    def build(self, folder: Path) -> None:
        """Write the sound source to `folder`."""

    @abstractmethod
    def damage(self, rng: random.Random, folder: Path) -> tuple[str, set[int]]:
        """Damage the source in `folder`; return a description, and the samples that are still whole."""

    def sources(self, folder: Path) -> list[Path]:
        """Arguments of the command."""
        return [folder]

    def prepare(self, base: Path, codec: Path, tried: bool) -> None:
        """Write the sound source, its good neighbours, and the rows of both by every verb, for any `tried`."""
        folder = base / "speech"
        folder.mkdir(parents=True)
        for number in (1, 2):
            (folder / f"good-{number}.wav").write_bytes(wave(50 + number))
        self.build(folder)
        for verb in ("tokenize", "shard"):
            code = self._run(verb, folder, base / verb, codec)
            assert code == 0, f"{verb} of the sound {self.name} ended with {code}"
        texts = {text for text, _ in rows_of(base / "tokenize").values()}
        assert texts >= {f"sample {n}" for n in range(N_SAMPLES)}, texts

    def check(self, base: Path, codec: Path, rng: random.Random, place: Path) -> tuple[str, str]:
        """Damage a copy of the source, read it, and compare the rows that must not have changed."""
        folder = place / "speech"
        folder.mkdir()
        for path in (base / "speech").iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        case, whole = self.damage(rng, folder)
        verb = rng.choice(["tokenize", "shard"])
        (place / CASE).write_text(f"{verb} {case}", errors="replace")
        code = self._run(verb, folder, place / "out", codec)
        if code and self.may_refuse and code == 2:
            return "refused", ""
        if code:
            return "unit failed", f"exit code {code}"
        found = rows_of(place / "out")
        texts = {None, *(f"sample {n}" for n in whole)}
        for key, (text, content) in rows_of(base / verb).items():
            if text in texts and found.get(key) != (text, content):
                state = "changed" if key in found else "lost"
                return "neighbour", f"{key} with the text {text!r} is {state}"
        return "kept", ""

    def _run(self, verb: str, folder: Path, output: Path, codec: Path) -> int:
        more = ["--codec", codec, "--device", "cpu"] if verb == "tokenize" else ["--min-seconds", "0.1"]
        return codectok(
            verb, *self.sources(folder), output, *more, "--engine", "local", "--max-rejects", "1", "--no-space-check"
        )


class Tars(SampleKind):
    """WebDataset tars with a JSON of labels beside each sample."""

    name = "tars"

    def build(self, folder: Path) -> None:
        """Write a tar, plain or of another dialect."""
        with tarfile.open(folder / "bad.tar", "w", format=tarfile.GNU_FORMAT) as tar:
            for name, data in self._members():
                _add(tar, name, data)

    def _members(self) -> Iterator[tuple[str, bytes]]:
        for n in range(N_SAMPLES):
            labels = {
                "text": f"sample {n}",
                "speaker": f"s{n}",
                "language": "en",
                "score": 0.5,
                "tags": ["a", {"b": 1}],
            }
            yield f"sample-{n}.json", json.dumps(labels).encode()
            yield f"sample-{n}.wav", wave(n)

    def damage(self, rng: random.Random, folder: Path) -> tuple[str, set[int]]:
        """Damage bytes, headers, members or labels."""
        path = folder / "bad.tar"
        kind = rng.choice(["bytes", "bytes", "header", "header", "labels", "labels", "member", "special"])
        everything = set(range(N_SAMPLES))
        if kind in ("bytes", "header"):
            data = path.read_bytes()
            done, changed = damage_bytes(rng, data, wave(9)) if kind == "bytes" else _lying_header(rng, data)
            path.write_bytes(changed)
            return f"{kind}: {done}", _before_change(data, changed)
        members = list(self._members())
        victim = rng.randrange(N_SAMPLES)
        labels, sound = members[2 * victim][1], members[2 * victim + 1][1]
        if kind == "labels":
            done, text = damage_json(rng, labels.decode())
            members[2 * victim] = (members[2 * victim][0], text.encode("utf-8", "surrogatepass"))
        elif kind == "member":
            done, sound = damage_bytes(rng, sound, labels)
            members[2 * victim + 1] = (members[2 * victim + 1][0], sound)
        else:
            done = _special_member(rng, members, victim)
        # PAX and USTAR as well as GNU, with the same names.
        dialect = rng.choice([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
        with tarfile.open(path, "w", format=dialect) as tar:
            for name, data in members:
                _add(tar, name, data)
        return f"{kind} of sample {victim}: {done}", everything - {victim}


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def _special_member(rng: random.Random, members: list[tuple[str, bytes]], victim: int) -> str:
    """Add a member with a name, or replace the sound by contents, that readers may stumble over."""
    place = 2 * victim
    done = rng.choice(["name", "twice", "text", "large text", "empty", "other labels"])
    if done == "name":
        odd = rng.choice(["x" * 300, "../../up", "/root", "a\nb", "é" * 200, ".", "..", "a/" * 100 + "b", "  ", "\\"])
        members[place : place + 2] = [(f"{odd}.json", members[place][1]), (f"{odd}.wav", members[place + 1][1])]
    elif done == "twice":
        members.insert(place, members[place])
    elif done == "text":
        members.insert(place, (f"sample-{victim}.txt", rng.choice([b"\xff\xfe", b"\0", b"\xed\xa0\x80", b""])))
    elif done == "large text":
        members.insert(place, (f"sample-{victim}.txt", b"word " * 1_000_000))
    elif done == "empty":
        members[place + 1] = (members[place + 1][0], b"")
    else:
        members[place] = (members[place][0], rng.choice([*VALUES, *TEXTS]).encode("utf-8", "surrogatepass"))
    return done


def _lying_header(rng: random.Random, data: bytes) -> tuple[str, bytes]:
    """Change the size, kind or name in the header of a member, with a checksum that is right."""
    headers = [place for place in range(0, len(data) - 512, 512) if data[place + 257 : place + 262] == b"ustar"]
    place = rng.choice(headers)
    header = bytearray(data[place : place + 512])
    kind = rng.choice(["size", "size", "size", "type", "name", "mode", "checksum"])
    if kind == "size":
        number = rng.choice([*NUMBERS, (1 << 70) - 1, 512, 1 << 33])
        octal = b"%011o\0" % number
        header[124:136] = octal if len(octal) == 12 else b"\x80" + number.to_bytes(11, "big")
        if rng.random() < 0.1:
            header[124:136] = rng.choice([b"\xff" * 12, b"-0000000001\0", b"not a size\0\0", b" " * 12])
        kind = f"size {bytes(header[124:136])!r}"
    elif kind == "type":
        header[156] = rng.choice(b"12345679xgXLKSVMDNA\0\xff")
        kind = f"type {chr(header[156])!r}"
    elif kind == "name":
        header[0:100] = rng.choice([b"\xff" * 100, bytes(100), b"/" * 100, rng.randbytes(100)])
    elif kind == "mode":
        header[100:124] = rng.randbytes(24)
    header[148:156] = b"        "
    header[148:156] = b"%06o\0 " % sum(header)
    if kind == "checksum":
        header[148:156] = rng.randbytes(8)
    return f"{kind} at {place}", data[:place] + bytes(header) + data[place + 512 :]


def _before_change(data: bytes, changed: bytes) -> set[int]:
    """Samples that end before the first byte that differs, and are followed by a header that is whole."""
    least = min(len(data), len(changed))
    same = np.frombuffer(data[:least], np.uint8) == np.frombuffer(changed[:least], np.uint8)
    first = least if same.all() else int(np.argmin(same))
    size = (len(_framed(0)) + 511) // 512 * 512
    return {n for n in range(N_SAMPLES) if (n + 1) * size + 512 <= first}


def _framed(number: int) -> bytes:
    """Bytes of a sample in a tar: two headers and two members."""
    labels, sound = list(Tars()._members())[:2]
    return b"".join(bytes(512) + data + bytes(-len(data) % 512) for _, data in (labels, sound))


class ParquetFiles(SampleKind):
    """Parquet with audio in a column, as the Hugging Face Hub has it."""

    name = "parquet"

    def build(self, folder: Path) -> None:
        """Write one file."""
        texts = [f"sample {n}" for n in range(N_SAMPLES)]
        audio = [{"bytes": wave(n), "path": f"{n}.wav"} for n in range(N_SAMPLES)]
        columns = {"audio": audio, "text": texts, "speaker": ["s"] * N_SAMPLES, "score": [0.5] * N_SAMPLES}
        features = {"info": {"features": {"audio": {"sampling_rate": RATE, "_type": "Audio"},
                                          "text": {"dtype": "string", "_type": "Value"}}}}  # fmt: skip
        table = pa.table(columns).replace_schema_metadata({"huggingface": json.dumps(features)})
        pq.write_table(table, folder / "bad.parquet", row_group_size=3)

    def damage(self, rng: random.Random, folder: Path) -> tuple[str, set[int]]:
        """Damage bytes, types, values or metadata."""
        path = folder / "bad.parquet"
        if rng.random() < 0.4:
            done, changed = damage_bytes(rng, path.read_bytes(), wave(9))
            path.write_bytes(changed)
            return done, set()
        return damage_table(rng, path), set()


class Manifests(SampleKind):
    """Manifests of files: JSON lines and CSV."""

    name = "manifests"
    may_refuse = True

    def build(self, folder: Path) -> None:
        """Write the files, and a manifest of each format."""
        (folder / "audio").mkdir()
        lines = []
        for n in range(N_SAMPLES):
            (folder / f"sample-{n}.wav").write_bytes(wave(n))
            lines.append(
                {"audio_filepath": f"sample-{n}.wav", "text": f"sample {n}", "duration": 0.3, "offset": 0.0,
                 "speaker": "s", "more": {"a": [1, {"b": 2}]}}
            )  # fmt: skip
        (folder / "audio").rmdir()
        (folder / "bad.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        rows = [f"sample-{n}.wav,sample {n},s,0.0,0.3" for n in range(N_SAMPLES)]
        (folder / "bad.csv").write_text("\n".join(["path,text,speaker,start,end", *rows, ""]))

    def sources(self, folder: Path) -> list[Path]:
        """Read the manifest that is damaged, and the good files."""
        chosen = folder / ("bad.csv" if (folder / "use-csv").exists() else "bad.jsonl")
        return [chosen, folder / "good-1.wav", folder / "good-2.wav"]

    def damage(self, rng: random.Random, folder: Path) -> tuple[str, set[int]]:
        """Damage bytes, or values of a line."""
        if rng.random() < 0.4:
            (folder / "use-csv").touch()
            path = folder / "bad.csv"
            data = path.read_bytes()
            done, changed = damage_bytes(rng, data, b"a,b\n1,2\n")
            if rng.random() < 0.3:
                lines = data.decode().splitlines()
                cell = rng.choice(["9" * 5000, "1e400", '"', '""', "nan", "\0", "x" * 200_000, "-1", "\ud800", "=1+1"])
                place = rng.randrange(1, len(lines))
                cells = lines[place].split(",")
                cells[rng.randrange(len(cells))] = cell
                lines[place] = ",".join(cells)
                done, changed = f"cell {cell[:20]!r}", "\n".join(lines).encode("utf-8", "surrogatepass")
            path.write_bytes(changed)
            return f"csv: {done}", set()
        path = folder / "bad.jsonl"
        lines = path.read_text().splitlines()
        victim = rng.randrange(N_SAMPLES)
        if rng.random() < 0.3:
            done, line = damage_bytes(rng, lines[victim].encode(), b"{}")
        else:
            done, text = damage_json(rng, lines[victim])
            line = text.encode("utf-8", "surrogatepass")
        encoded = [line if n == victim else text.encode() for n, text in enumerate(lines)]
        path.write_bytes(b"\n".join(encoded) + b"\n")
        return f"jsonl: {done}", set(range(N_SAMPLES)) - {victim}
