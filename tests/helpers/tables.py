"""Small token tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from codectok.tokens.table import TableMetadata, TokenRow, TokenTableWriter


def metadata(codebook_size: int = 1024, n_codebooks: int = 2, fingerprint: str = "f") -> TableMetadata:
    return TableMetadata(
        codec_name="nano",
        codec_fingerprint=fingerprint,
        codebook_size=codebook_size,
        n_codebooks=n_codebooks,
        frame_rate=93.75,
        sample_rate=24_000,
        dtype="float32",
        device="cpu",
        pack_frames=4096,
    )


def rows(count: int, codebook_size: int = 1024, n_codebooks: int = 2) -> list[TokenRow]:
    generator = np.random.default_rng(0)
    return [
        TokenRow(
            id=f"clip/{n}",
            source="a.wav",
            dataset="d" if n % 2 else "e",
            start=float(n),
            duration=1.5,
            n_samples=36_000,
            codes=generator.integers(codebook_size, size=(5 + n, n_codebooks)),
            text="hello" if n else None,
        )
        for n in range(count)
    ]


def write(path: Path, made: list[TokenRow], described: TableMetadata) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with TokenTableWriter(path, described) as writer:
        for row in made:
            writer.write(row)
