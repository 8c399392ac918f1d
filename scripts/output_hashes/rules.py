"""Rules for hashing each kind of file, and the list of all files."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

INPUTS, LOGS = "inputs", "logs"
PLACEHOLDER = b"OUT"


def read_plan(path: Path, out: Path) -> Iterator[bytes]:
    """Read a file, with a placeholder for the path of OUT."""
    yield path.read_bytes().replace(os.fsencode(out), PLACEHOLDER)


def read_rejects(path: Path, out: Path) -> Iterator[bytes]:
    """Read a table of rejects without its messages."""
    table = pq.read_table(path)
    kept = table.drop_columns(["message"])
    yield f"{table.schema.names} {kept.schema}\n".encode()
    yield from (f"{row}\n".encode() for row in kept.to_pylist())


def read_record(path: Path, out: Path) -> Iterator[bytes]:
    """Read a unit's record, without size and hash of its rejects."""
    record = json.loads(path.read_bytes())
    for file in record["files"]:
        if "/rejects/" in file["name"]:
            del file["bytes"], file["sha256"]
    yield json.dumps(record, indent=2).encode()


def read_summary(path: Path, out: Path) -> Iterator[bytes]:
    """Read a job's summary, without the hash of its records if these contain hashes of rejects."""
    summary = json.loads(path.read_bytes())
    if (path.parent / "rejects").is_dir():
        del summary["records"]
    yield json.dumps(summary, indent=2).encode()


def read_statistics(path: Path, out: Path) -> Iterator[bytes]:
    """Read the statistics of a job, without the times of its run."""
    statistics = json.loads(path.read_bytes())
    statistics.pop("timing", None)
    yield json.dumps(statistics, separators=(",", ":")).encode() + b"\n"


def read_training(path: Path, out: Path) -> Iterator[bytes]:
    """Read names and values of a training checkpoint, in the order of names."""
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
    """Read a whole file."""
    yield path.read_bytes()


Read = Callable[[Path, Path], Iterator[bytes]]


@dataclass(frozen=True)
class Rule:
    """Reads the hashed content of files that match `pattern`; None only records that they exist."""

    pattern: str
    read: Read | None
    reason: str


RULES = (
    Rule("*/_codectok/plan.json", read_plan, "the folders of datasets are absolute"),
    Rule("*/_codectok/rejects/*.parquet", read_rejects, "messages are sentences, which may change"),
    Rule("*/_codectok/records/*.json", read_record, "size and hash of rejects are those of sentences"),
    Rule("*/_codectok/summary.json", read_summary, "so is the hash of records with rejects"),
    Rule("*/_codectok/stats.json", read_statistics, "times differ from run to run"),
    Rule("*/_codectok/report.html", None, "sentences"),
    Rule("*/_codectok/failures/*", None, "tracebacks"),
    Rule("*/report.html", None, "sentences"),
    Rule("train/*/training.pt", read_training, "an archive; what counts are its values by their names"),
    Rule("train/*/tensorboard/*", None, "times, host and process, also in the names of files"),
    Rule("train/*/ray/*", None, "what Ray notes for itself, with times"),
)
EVERYTHING = Rule("*", read_bytes, "")
# Listed apart: text for people, which may change.
FOR_PEOPLE = ("*/README.md",)


def rule_of(name: str) -> Rule:
    """Return the first rule that matches a file."""
    return next((rule for rule in RULES if fnmatch(name, rule.pattern)), EVERYTHING)


def listed(out: Path) -> tuple[list[str], list[str]]:
    """Return the lines for all files that commands wrote, and the lines for texts that may change."""
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
    """Return the name that stands for a file that is not read: itself, or its folder if names vary."""
    if not rule.pattern.endswith("/*"):
        return name
    folder = rule.pattern.removesuffix("/*").rpartition("*")[2] + "/"
    return name[: name.index(folder) + len(folder)]


def _sha256(blocks: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for block in blocks:
        digest.update(block)
    return digest.hexdigest()
