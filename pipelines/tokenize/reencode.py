"""Encoding some sources of a token table again, to see that the same codes come out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import torch

from codectok.audio.files import write_audio
from codectok.codec import Codec
from codectok.device import Precision
from codectok.errors import AudioError, InputError, VerificationError
from codectok.evaluation.near_ties import are_near_ties
from codectok.model.clip_encoder import ClipEncoder
from codectok.model.packed_encoder import FeatureEncoder
from codectok.names import file_name_of
from codectok.pipelines.engine.plan import Plan, load_plan
from codectok.sources.clip import Clip
from codectok.sources.clips import clips_of
from codectok.storage import open_storage
from codectok.tokens.clips import decoded_blocks, encode_clips
from codectok.tokens.reader import open_table
from codectok.tokens.slicing import cut_row
from codectok.tokens.table import TokenRow


@dataclass(frozen=True)
class Reencoded:
    """What came of it: `exact` says that codec, arithmetic and kind of device are those of the table."""

    rows: int
    frames: int
    equal_frames: int
    exact: bool


def reencode(folder: str | Path, codec: Codec, count: int, seed: int = 0) -> Reencoded:
    """Encode the sources of `count` rows of the table in `folder` again, chosen at random by `seed`.

    Raises:
        InputError: another codec, or no output of `tokenize`.
        VerificationError: other codes where the device is the same, or codes elsewhere that are no near ties; or a
            source has gone.
    """
    table, plan = open_table(folder), load_plan(open_storage(folder), {})
    if plan is None or plan.header.verb != "tokenize":
        raise InputError(f"{folder} is not what `tokenize` has written: it has no plan that names its sources.")
    if table.metadata.codec_fingerprint != codec.fingerprint:
        raise InputError(f"{folder} was encoded by another codec ({table.metadata.label}) than the one given.")
    described = codec.describe()
    exact = (described.dtype, described.device) == (table.metadata.dtype, table.metadata.device) and (
        described.device == "cpu" or described.pack_frames == table.metadata.pack_frames
    )
    numbers = np.random.default_rng(seed).choice(len(table), min(count, len(table)), replace=False)
    wanted: dict[int, dict[str, TokenRow]] = {}
    for number in sorted(numbers.tolist()):
        row, unit = table.row(number), int(table.group_of(number).file.stem.rpartition("-")[2])
        wanted.setdefault(unit, {})[row.id] = row
    threads = torch.get_num_threads()
    torch.set_num_threads(cast(int, plan.header.options["encoder_threads"] or threads))
    frames = equal = 0
    try:
        for unit, rows in wanted.items():
            for again in _encoded_again(codec, plan, unit, rows):
                before = rows.pop(again.row.id)
                wrong, different = _compare(codec, table.metadata.precision, before.codes, again, exact)
                frames, equal = frames + len(before.codes), equal + len(before.codes) - different
                if wrong:
                    raise VerificationError(
                        f"The row {before.id} of {folder} has other codes than its source gives now, in"
                        f" {wrong} of {len(before.codes)} frames; was {before.source} changed?"
                    )
            if rows:
                name, row = next(iter(rows.items()))
                raise VerificationError(
                    f"The source {row.source} of the row {name} of {folder} gives no codes any more."
                )
    finally:
        torch.set_num_threads(threads)
    return Reencoded(len(numbers), frames, equal, exact)


def decode_some(folder: str | Path, codec: Codec, count: int, output: Path, seed: int = 0) -> list[Path]:
    """Decode `count` rows of the table in `folder`, chosen at random by `seed`, to wav files in `output`."""
    table = open_table(folder)
    if table.metadata.codec_fingerprint != codec.fingerprint:
        raise InputError(f"{folder} was encoded by another codec ({table.metadata.label}) than the one given.")
    numbers = np.random.default_rng(seed).choice(len(table), min(count, len(table)), replace=False)
    paths = []
    for number in sorted(numbers.tolist()):
        row = table.row(number)
        paths.append(output / f"{file_name_of(row.id)}.wav")
        write_audio(paths[-1], codec.decode_stream(row.codes), codec.sample_rate)
    return paths


@dataclass(frozen=True)
class _Again:
    """A row encoded again, and how to get what was quantized in it, [n_frames, C]."""

    row: TokenRow
    features: Callable[[], np.ndarray]


def _compare(codec: Codec, precision: Precision, before: np.ndarray, again: _Again, exact: bool) -> tuple[int, int]:
    """How many frames are wrong, and how many differ."""
    now = again.row.codes
    if now.shape != before.shape:
        return len(before), len(before)
    different = (now != before).any(axis=1)
    if exact or not different.any():
        return int(different.sum()), int(different.sum())
    near = are_near_ties(codec, precision, again.features()[different], before[different], now[different])
    return int((~near).sum()), int(different.sum())


def _encoded_again(codec: Codec, plan: Plan, unit: int, wanted: dict[str, TokenRow]) -> Iterator[_Again]:
    max_seconds = cast(float | None, plan.header.options["max_seconds"])
    # Slices have the id of their recording, and their place in it.
    ids = set(wanted) | {name.rpartition("_")[0] for name in wanted}

    def clips() -> Iterator[Clip]:
        for source in plan.unit(unit).sources:
            for clip in clips_of(source):
                if isinstance(clip, Clip) and clip.id in ids:
                    yield clip

    for clip, row in encode_clips(codec.clip_encoder, clips()):
        if isinstance(row, AudioError):
            continue  # its rows will be missed
        slices: Iterable[TokenRow | AudioError] = [row]
        if max_seconds is not None:
            slices = cut_row(row, clip.span, max_seconds, codec.sample_rate, codec.frame_size)
        for part in slices:
            if isinstance(part, TokenRow) and part.id in wanted:
                # By the place in the recording, in frames: that of a slice stands at the end of its id.
                first = 0 if part.id == row.id else int(part.id.rpartition("_")[2]) // codec.frame_size
                yield _Again(part, partial(_features, codec, clip, first, first + len(part.codes)))


def _features(codec: Codec, clip: Clip, first: int, end: int) -> np.ndarray:
    encoder = ClipEncoder(codec.geometry, FeatureEncoder(codec.packed_encoder))
    blocks = encoder.encode_stream(decoded_blocks(clip, codec.sample_rate), codec.sample_rate)
    return torch.cat(list(blocks))[first:end].numpy()
