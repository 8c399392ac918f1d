"""`codectok inspect`."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from codectok.formatting import format_duration, megabytes

from .console import facts_table, rows_table

if TYPE_CHECKING:
    from codectok.codecs.base import AudioCodec
    from codectok.config import CodecConfig
    from codectok.description import CodecDescription

NAME = "inspect"
EXAMPLE = "codectok inspect codec/"
SHOWN_CLIPS = 5
SHOWN_CODES = 8


def run(
    target: Annotated[str, typer.Argument(help="Name of a codec or a preset, shards, codes, a token table, or audio.")],
) -> None:
    """Show rates, sizes and contents of a codec, a file or an output folder."""
    from codectok.audio.files import is_audio_path
    from codectok.checkpoints.built_in import built_in_codec
    from codectok.checkpoints.distilcodec import steps_in
    from codectok.checkpoints.finding import is_local_name
    from codectok.checkpoints.native import is_checkpoint
    from codectok.config import PRESETS
    from codectok.errors import InputError
    from codectok.loading import is_codec_name
    from codectok.pipelines.engine.planning.plan import PLAN_FILE
    from codectok.shards import MANIFEST_FILE
    from codectok.storage import is_url
    from codectok.tokens.codes_file import CODES_SUFFIXES

    if is_url(target):
        raise InputError(
            f"inspect reads local files and folders, not {target}; for the URL of a job's output use `codectok verify`."
        )
    path = Path(target)
    if built_in_codec(target) is not None:
        facts_table(f"codec {target}", _codec_facts(target))
    elif not path.exists() and target in PRESETS:
        facts_table(f"codec preset {target}", _preset_facts(target))
    elif not path.exists() and not is_audio_path(target) and (is_local_name(target) or is_codec_name(target)):
        facts_table(f"codec {target}", _codec_facts(target))
    elif not path.exists():
        raise InputError(f"There is no file, folder or codec preset {target}.")
    elif path.is_dir() and is_checkpoint(path):
        facts_table(f"codec {path}", _codec_facts(target))
    elif path.is_dir() and (steps := steps_in(path)):
        several = len(steps) > 1
        facts_table(f"codec {path}", _steps_facts(path, steps) if several else _codec_facts(target))
    elif path.is_dir() and (path / MANIFEST_FILE).is_file():
        facts_table(f"shards {path}", _shard_facts(path))
        facts_table("first segment", _first_segment(path))
    elif path.suffix in CODES_SUFFIXES or (path.is_dir() and any(path.glob("*.parquet"))):
        facts_table(f"codes {path}", _codes_facts(path))
        rows_table("first clips", ("id", "frames", "codes"), _first_codes(path))
    elif (path / PLAN_FILE).is_file():
        facts_table(f"unfinished job {path}", _job_facts(path))
    elif path.suffix == ".tar":
        facts_table(f"tar {path}", _tar_facts(path))
    elif path.is_dir():
        raise InputError(f"{path} is neither a codec nor shards nor a token table.")
    else:
        facts_table(f"audio {path}", _audio_facts(path))


def _preset_facts(name: str) -> dict[str, object]:
    from codectok.config import preset

    return {"weights": "none: a preset is a configuration", **_config_facts(name, preset(name))}


def _codec_facts(name: str) -> dict[str, object]:
    from codectok.checkpoints.built_in import built_in_codec
    from codectok.codec import Codec
    from codectok.loading import load_codec

    codec = load_codec(name, device="cpu")
    if not isinstance(codec, Codec):
        return _other_codec_facts(codec)
    folder = built_in_codec(name) or Path(name)
    size = sum(file.stat().st_size for file in folder.iterdir() if file.is_file()) if folder.is_dir() else None
    return {
        "origin": codec.header.origin,
        **_config_facts(codec.config.name, codec.config),
        **({} if size is None else {"size on disk": megabytes(size)}),
        **({} if codec.revision is None else {"revision": codec.revision}),
        "weights": codec.weights_sha256,
        "fingerprint": codec.fingerprint,
        **({"same codes as": ", ".join(others)} if (others := codec.decodable_fingerprints[1:]) else {}),
    }


def _steps_facts(path: Path, steps: list[int]) -> dict[str, object]:
    """Facts of a folder with several steps of a DistilCodec checkpoint."""
    from codectok.checkpoints.distilcodec_config import read_config

    config = read_config(path)
    listed = ", ".join(str(step) for step in steps)
    return {"steps": f"{listed}; choose one: {path}@{steps[-1]}", **_config_facts(config.name, config)}


def _other_codec_facts(codec: AudioCodec) -> dict[str, object]:
    described = codec.describe()
    bits = codec.frame_rate * codec.n_codebooks * math.log2(codec.codebook_size)
    rate, decoded = codec.sample_rate, codec.decoded_sample_rate
    return {
        "name": codec.name,
        "type": described.codec_type,
        "sample rate": f"{rate:,} Hz" if rate == decoded else f"{rate:,} Hz, decoded to {decoded:,} Hz",
        "frame": f"{codec.frame_size} samples, {codec.frame_rate:g} per second",
        "codebooks": f"{codec.n_codebooks} of {codec.codebook_size:,} codes",
        "tokens": f"{codec.frame_rate * codec.n_codebooks:g} per second, {bits:,.1f} bit/s",
        **_origin_facts(described),
        "fingerprint": codec.fingerprint,
    }


def _config_facts(name: str, config: CodecConfig) -> dict[str, object]:
    import torch

    from codectok.model.network import CodecNetwork

    with torch.device("meta"):
        network = CodecNetwork(config)
    modules = {"encoder": network.encoder, "quantizer": network.quantizer, "decoder": network.decoder}
    counts = {name: sum(t.numel() for t in module.state_dict().values()) for name, module in modules.items()}
    quantizer = config.quantizer
    bits = config.frame_rate * quantizer.n_codebooks * math.log2(quantizer.codebook_size)
    return {
        "name": name,
        "sample rate": f"{config.mel.sample_rate:,} Hz",
        "frame": f"{config.frame_size} samples, {config.frame_rate:g} per second",
        "codebooks": f"{quantizer.n_codebooks} of {quantizer.codebook_size:,} codes ({quantizer.type})",
        "tokens": f"{config.frame_rate * quantizer.n_codebooks:g} per second, {bits:,.1f} bit/s",
        "tensors": ", ".join(f"{module} {count:,}" for module, count in counts.items()),
    }


def _shard_facts(path: Path) -> dict[str, object]:
    from codectok.pipelines.engine.output.report import REPORT_FILE
    from codectok.shards import read_manifest
    from codectok.storage import open_storage

    manifest = read_manifest(open_storage(path))
    categories = sum((Counter(shard.categories) for shard in manifest.shards), Counter[str]())
    held_out = sum(shard.seconds for shard in manifest.shards if shard.split == "validation")
    return {
        "tars": f"{len(manifest.shards):,}",
        "segments": f"{sum(shard.samples for shard in manifest.shards):,}",
        "audio": format_duration(sum(shard.seconds for shard in manifest.shards)),
        "categories": ", ".join(f"{name} {count:,}" for name, count in sorted(categories.items())) or "none",
        "for validation": format_duration(held_out) if held_out else "none",
        "size": megabytes(sum(shard.bytes for shard in manifest.shards)),
        "sample rate": f"{manifest.sample_rate:,} Hz",
        "report": report if (report := path / REPORT_FILE).is_file() else "none",
    }


def _first_segment(path: Path) -> dict[str, object]:
    from codectok.shards import first_sample

    found = first_sample(path)
    if found is None:
        return {"key": "none: there are no segments"}
    key, sample = found
    return {"key": key, **sample.model_dump(exclude_none=True)}


def _job_facts(path: Path) -> dict[str, object]:
    from codectok.pipelines.engine.output.folder import finished_units
    from codectok.pipelines.engine.planning.plan import load_plan
    from codectok.storage import open_storage

    storage = open_storage(path)
    plan = load_plan(storage, {})
    assert plan is not None, "the caller found its file"
    done = finished_units(storage, plan)
    total = sum(record.total.seconds for record in done.values())
    return {
        "verb": plan.header.verb,
        "sources": f"{plan.n_sources:,} in {', '.join(plan.roots.values())}",
        "units": f"{len(done):,} of {len(plan.units):,} are finished ({format_duration(total)} of audio)",
        "to resume": "run the same command again",
    }


def _tar_facts(path: Path) -> dict[str, object]:
    import lzma
    import tarfile
    import zlib

    from codectok.audio.files import is_audio_path
    from codectok.errors import InputError, shortened

    try:
        with tarfile.open(path) as tar:
            members = tar.getmembers()
    except (tarfile.TarError, EOFError, ValueError, OverflowError, MemoryError, zlib.error, lzma.LZMAError) as error:
        raise InputError(f"{path} cannot be read as a tar: {shortened(error)}.") from None
    audio = [member for member in members if is_audio_path(member.name)]
    return {
        "members": f"{len(members):,}",
        "audio files": f"{len(audio):,} ({megabytes(sum(member.size for member in audio))})",
        "first": members[0].name if members else "none",
        "size": megabytes(path.stat().st_size),
    }


def _codes_facts(path: Path) -> dict[str, object]:
    import numpy as np

    from codectok.tokens.codes_file import read_codes, read_codes_metadata

    metadata = read_codes_metadata(path, allow_mixed=True)
    histogram = np.zeros(metadata.codebook_size, np.int64)
    clips = frames = 0
    for _, codes in read_codes(path, allow_mixed=True):
        histogram += np.bincount(codes.reshape(-1), minlength=metadata.codebook_size)
        clips, frames = clips + 1, frames + len(codes)
    return {
        "clips": f"{clips:,}",
        "audio": format_duration(frames / metadata.frame_rate),
        "codes": f"{histogram.sum():,}, {np.count_nonzero(histogram):,} different of {metadata.codebook_size:,}",
        "frame rate": f"{metadata.frame_rate:g} per second, {metadata.n_codebooks} codes each",
        "codec": f"{metadata.codec_name} ({metadata.codec_type}), fingerprint {metadata.codec_fingerprint}",
        **_origin_facts(metadata),
        "made with": metadata.made_with,
    }


def _origin_facts(described: CodecDescription) -> dict[str, object]:
    return {"revision": described.revision or "unknown", "weights": described.weights_sha256 or "unknown"}


def _first_codes(path: Path) -> list[tuple[object, ...]]:
    from codectok.tokens.codes_file import read_codes

    rows: list[tuple[object, ...]] = []
    for name, codes in itertools.islice(read_codes(path, allow_mixed=True), SHOWN_CLIPS):
        start = " ".join(str(code) for code in codes.reshape(-1)[:SHOWN_CODES])
        rows.append((name, f"{len(codes):,}", f"{start} ..." if codes.size > SHOWN_CODES else start))
    return rows


def _audio_facts(path: Path) -> dict[str, object]:
    from codectok.audio.files import audio_info

    info = audio_info(path)
    return {
        "format": f"{info.container}, {info.encoding}",
        "sample rate": f"{info.sample_rate:,} Hz",
        "channels": info.channels,
        "samples": f"{info.n_samples:,} ({format_duration(info.seconds)})",
        "size": megabytes(path.stat().st_size),
        **({"streams": info.streams} if info.streams > 1 else {}),
        **({"damage": info.damage} if info.damage else {}),
    }
