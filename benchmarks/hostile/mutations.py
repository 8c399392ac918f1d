"""Mutations of files: of their bytes, of the values in JSON, and of the tensors in a checkpoint."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

PLACEHOLDER = "PLACEHOLDER-OF-THE-FUZZER"
# Sizes and offsets that no writer means.
NUMBERS = (0, 1, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 40, 1 << 62, (1 << 63) - 1, (1 << 64) - 1)
TEXTS = (
    '""', '"\\ud800"', '"\\u0000"', '"a\\nb"', '"../../etc/passwd"', '"file:///etc/passwd"', '"' + "x" * 100_000 + '"',
    '"{0.__class__}"', '"nan"', '"\\u202e"', '"' + "\u00e9" * 300 + '"',
)  # fmt: skip
VALUES = (
    "0", "-1", "1", "2", "3.5", "-0.0", "1e400", "-1e400", "1e-400", "NaN", "Infinity", "-Infinity", "true", "false",
    "null", "[]", "{}", "[[]]", '[null, 1, "a"]', '{"a": {"b": [1]}}', "65535", "1000003", "2147483648", str(1 << 53),
    str((1 << 63) - 1), str(1 << 63), str(1 << 64), "9" * 30, "9" * 5000, "[" * 2000 + "]" * 2000,
    "[" * 100_000 + "]" * 100_000, '{"a":' * 20_000 + "1" + "}" * 20_000, "[" + "1," * 300_000 + "1]",
    "[[1], 2, [3, 4]]",
)  # fmt: skip

BytesMutation = Callable[[random.Random, bytes, bytes], bytes]


def flip_bits(rng: random.Random, data: bytes, _: bytes) -> bytes:
    """Flip 1 to 64 bits anywhere."""
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 8, 64])):
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def flip_header_bits(rng: random.Random, data: bytes, _: bytes) -> bytes:
    """Flip bits among the first or last 300 bytes, where formats have their headers and footers."""
    changed = bytearray(data)
    reach = min(300, len(data))
    for _ in range(rng.choice([1, 2, 4])):
        place = rng.randrange(reach)
        changed[place if rng.random() < 0.5 else len(data) - 1 - place] ^= 1 << rng.randrange(8)
    return bytes(changed)


def truncate(rng: random.Random, data: bytes, _: bytes) -> bytes:
    """Cut the file off."""
    return data[: rng.choice([0, 1, rng.randrange(len(data)), rng.randrange(len(data)), len(data) - 1])]


def splice(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Begin as the file and end as another one."""
    return data[: rng.randrange(len(data))] + other[rng.randrange(len(other)) :]


def repeat(rng: random.Random, data: bytes, _: bytes) -> bytes:
    """Repeat a piece of the file inside of it."""
    place, length = rng.randrange(len(data)), rng.choice([1, 8, 512, 5000])
    return data[: place + length] * rng.choice([2, 2, 5]) + data[place:]


def insert(rng: random.Random, data: bytes, _: bytes) -> bytes:
    """Insert random bytes, zeros or a large number."""
    place = rng.randrange(len(data))
    more = rng.choice([rng.randbytes(rng.choice([1, 9, 700])), bytes(512), struct.pack("<Q", rng.choice(NUMBERS))])
    return data[:place] + more + data[place:]


def remove(rng: random.Random, data: bytes, _: bytes) -> bytes:
    """Remove some bytes inside."""
    place = rng.randrange(len(data))
    return data[:place] + data[place + rng.choice([1, 8, 512]) :]


def lie(rng: random.Random, data: bytes, _: bytes) -> bytes:
    """Replace four or eight bytes near the beginning or the end by a number that no writer means."""
    size = rng.choice([4, 8])
    if len(data) <= size:
        return data
    place = rng.randrange(min(300, len(data) - size))
    if rng.random() < 0.5:
        place = len(data) - size - place
    number = rng.choice(NUMBERS) % (1 << 8 * size)
    return data[:place] + number.to_bytes(size, rng.choice(["big", "little"])) + data[place + size :]  # type: ignore[arg-type]


def replace_whole(rng: random.Random, data: bytes, _: bytes) -> bytes:
    """Replace the file by another kind of file."""
    return rng.choice(
        [b"", bytes(1000), b"\xff" * 1000, b"[" * 100_000, b'{"a":' * 100_000, b"PK\x03\x04" + bytes(60), b"\x1f\x8b",
         b"PAR1" + bytes(20) + b"PAR1", b"\x80\x04.", b"9" * 10_000, b"<html>", b"- " * 5000, data[::-1]]
    )  # fmt: skip


OF_BYTES: tuple[BytesMutation, ...] = (
    flip_bits, flip_bits, flip_header_bits, flip_header_bits, truncate, truncate, splice, repeat, insert, remove, lie,
    lie, replace_whole,
)  # fmt: skip


def damage_bytes(rng: random.Random, data: bytes, other: bytes) -> tuple[str, bytes]:
    """Damage `data` by a mutation of bytes; return the name of the mutation, too."""
    mutation = rng.choice(OF_BYTES)
    return mutation.__name__, mutation(rng, data, other or data) if data else b"x"


def damage_json(rng: random.Random, text: str) -> tuple[str, str]:
    """Replace, drop, rename or repeat a value of a JSON text."""
    value = json.loads(text)
    places = list(_places(value))
    if not places:
        return "whole value", rng.choice(VALUES)
    holder, key = rng.choice(places)
    kind = rng.choice(["replace"] * 8 + ["drop", "rename", "repeat", "scale"])
    raw = rng.choice(rng.choice([VALUES, VALUES, TEXTS]))
    old = holder[key]
    if kind == "drop":
        del holder[key]
    elif kind == "rename" and isinstance(holder, dict):
        holder[rng.choice(["", "x" * 1000, "\0", f"{key} ", "__class__"])] = holder.pop(key)
    elif kind == "repeat" and isinstance(old, list) and old:
        holder[key] = old * rng.choice([2, 50, 20_000])
    elif kind == "scale" and isinstance(old, int | float) and not isinstance(old, bool):
        holder[key] = old * rng.choice([-1, 0.5, 2, 1000, 10**6, 10**12])
    else:
        holder[key] = PLACEHOLDER
    return f"{kind} {key} by {raw[:40]}", json.dumps(value).replace(f'"{PLACEHOLDER}"', raw)


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each holder and key within a value."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in entries:
        yield value, key
        yield from _places(inner)


def damage_file(rng: random.Random, path: Path, others: list[Path]) -> str:
    """Damage the file at `path` in a way that suits its format, and describe it."""
    data = path.read_bytes()
    other = rng.choice(others).read_bytes() if others else data
    if path.suffix == ".json" and rng.random() < 0.7:
        done, text = damage_json(rng, data.decode())
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
    elif path.suffix == ".safetensors" and rng.random() < 0.5:
        done, changed = damage_safetensors(rng, data)
        path.write_bytes(changed)
    elif path.suffix == ".parquet" and rng.random() < 0.6:
        from .parquet import damage_table

        done = damage_table(rng, path)
    elif path.suffix in (".pt", "") and data[:2] == b"PK" and rng.random() < 0.6:
        done = damage_state(rng, path)
    else:
        done, changed = damage_bytes(rng, data, other)
        path.write_bytes(changed)
    return f"{path.name}: {done}"


def damage_safetensors(rng: random.Random, data: bytes) -> tuple[str, bytes]:
    """Damage the header of a safetensors file, a JSON text, or its length."""
    (length,) = struct.unpack("<Q", data[:8])
    header, body = data[8 : 8 + length], data[8 + length :]
    if rng.random() < 0.2:
        return "length of the header", struct.pack("<Q", rng.choice(NUMBERS)) + header + body
    if rng.random() < 0.3:
        place = rng.randrange(0, len(body) - 4, 4)
        return "a value that is not finite", data[: 8 + length] + body[:place] + b"\0\0\x80\x7f" + body[place + 4 :]
    done, text = damage_json(rng, header.decode())
    new = text.encode("utf-8", "surrogatepass")
    return f"header: {done}", struct.pack("<Q", len(new)) + new + body


def damage_state(rng: random.Random, path: Path) -> str:
    """Damage an entry of a file that torch has saved."""
    import torch

    state = torch.load(path, map_location="cpu", weights_only=True)
    places = list(_places(state))
    holder, key = rng.choice(places)
    kind = rng.choice(["drop", "replace", "shape", "fill"])
    old = holder[key]
    if isinstance(old, torch.Tensor) and kind == "shape":
        holder[key] = rng.choice([torch.zeros(0), torch.zeros(3, 5), torch.zeros(()), old.reshape(-1)[:1]])
    elif isinstance(old, torch.Tensor) and kind == "fill":
        holder[key] = rng.choice(
            [old.to(torch.int8), old.double(), torch.full_like(old, -1), old.to_sparse() if old.dim() else old,
             torch.zeros(1).expand(1 << 20), torch.full(old.shape, float("nan"))]
        )  # fmt: skip
    elif kind == "drop" and isinstance(holder, dict):
        del holder[key]
    else:
        holder[key] = rng.choice([None, [], {}, "text", -1, 1 << 62, 3.5, float("nan"), [1, 2], {1: 2}, True, (), old])
    torch.save(state, path)
    return f"{kind} {key!r}"
