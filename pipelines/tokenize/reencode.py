"""Encodes some rows of a token table again from their sources, and compares the codes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from codectok.audio.files import write_audio
from codectok.audio.sound import SoundOptions
from codectok.choices import Precision
from codectok.codec import Codec
from codectok.codecs.base import AudioCodec
from codectok.errors import AudioError, InputError, VerificationError
from codectok.evaluation.codes.near_ties import are_near_ties
from codectok.loading import check_made_by
from codectok.model.clip_encoder import PackedClipEncoder
from codectok.model.packed_encoder import FeatureEncoder
from codectok.pipelines.engine.output.unit_files import unit_of_file
from codectok.pipelines.engine.planning.plan import Plan, load_plan
from codectok.sources.channels import CHANNEL_MARK, clips_of_channels
from codectok.sources.clip import Clip
from codectok.sources.clips import clips_of
from codectok.storage import open_storage
from codectok.tokens.clips import ClipReader, encode_clips
from codectok.tokens.codes_file import file_names
from codectok.tokens.mixing import VERSION_FIELDS
from codectok.tokens.reader import TokenTable, open_table
from codectok.tokens.slicing import cut_row
from codectok.tokens.table import TokenRow

from .options import PlannedOptions

# Share of frames that may differ on another device, for codecs whose distances to codes are unknown.
OTHER_DEVICE_SHARE = 0.1


@dataclass(frozen=True)
class Reencoded:
    """Result of encoding rows again.

    Attributes:
        rows, frames: numbers of compared rows and frames.
        equal_frames: frames with equal codes.
        exact: True if precision and device equal the table's, so that codes must be equal.
    """

    rows: int
    frames: int
    equal_frames: int
    exact: bool


def reencode(folder: str | Path, codec: AudioCodec, count: int, seed: int = 0) -> Reencoded:
    """Encode the sources of `count` random rows of the table in `folder` again.

    Raises:
        InputError: the codec is not the table's, or `folder` is not the output of `tokenize`.
        VerificationError: codes differ, or a source is missing. On another device, or with other versions of libraries,
            near ties may differ, and a tenth of the frames if the codec is of another maker.
    """
    table, plan = open_table(folder), load_plan(open_storage(folder), {})
    if plan is None or plan.header.verb != "tokenize":
        raise InputError(f"{folder} is not the output of `tokenize`: it has no plan that names its sources.")
    check_made_by(codec, table.path, table.metadata)
    described = codec.describe()
    alike = ["dtype", "device", "kernels", "batch_seconds"]
    if described.device != "cpu":
        alike.append("pack_frames")
    alike += [name for name in VERSION_FIELDS if getattr(table.metadata, name) is not None]
    exact = all(getattr(described, name) == getattr(table.metadata, name) for name in alike)
    numbers = _random_rows(table, count, seed)
    wanted: dict[int, dict[str, TokenRow]] = {}
    for number in numbers:
        row, file = table.row(number), table.group_of(number).file
        unit = unit_of_file(file.name)
        if unit is None:
            raise VerificationError(f"{file} belongs to no unit of the job; move it elsewhere.")
        wanted.setdefault(unit, {})[row.id] = row
    threads = torch.get_num_threads()
    torch.set_num_threads(PlannedOptions.from_plan(plan).encoder_threads or threads)
    frames = equal = 0
    try:
        for unit, rows in wanted.items():
            for again in _encoded_again(codec, plan, unit, rows):
                before = rows.pop(again.row.id)
                wrong, different = _compare(codec, table.metadata.precision, before.codes, again, exact)
                frames, equal = frames + len(before.codes), equal + len(before.codes) - different
                if wrong:
                    raise VerificationError(
                        f"The row {before.id} of {folder} has other codes than its source now, in {wrong} of"
                        f" {len(before.codes)} frames; was {before.source} changed?"
                    )
            if rows:
                name, row = next(iter(rows.items()))
                raise VerificationError(
                    f"The source {row.source} of the row {name} of {folder} has no codes any more; was it changed?"
                )
    finally:
        torch.set_num_threads(threads)
    return Reencoded(len(numbers), frames, equal, exact)


def decode_some(folder: str | Path, codec: AudioCodec, count: int, output: Path, seed: int = 0) -> list[Path]:
    """Decode `count` random rows of the table in `folder` to WAV files in `output`, and return their paths.

    Files of the same names, which an earlier check left, are replaced.
    """
    table = open_table(folder)
    check_made_by(codec, table.path, table.metadata)
    names = file_names(folder)
    paths = []
    for number in _random_rows(table, count, seed):
        row = table.row(number)
        paths.append(output / names.of(row.id, ".wav"))
        blocks = codec.decode_stream(row.codes, row.n_samples)
        write_audio(paths[-1], blocks, codec.decoded_sample_rate, len(row.codes) / codec.frame_rate, overwrite=True)
    return paths


def _random_rows(table: TokenTable, count: int, seed: int) -> list[int]:
    numbers = np.random.default_rng(seed).choice(len(table), min(count, len(table)), replace=False)
    return sorted(numbers.tolist())


@dataclass(frozen=True)
class _Again:
    """A row encoded again; `features` computes its quantizer input [n_frames, C]."""

    row: TokenRow
    features: Callable[[], np.ndarray]


def _compare(
    codec: AudioCodec, precision: Precision, before: np.ndarray, again: _Again, exact: bool
) -> tuple[int, int]:
    """Return the number of wrong frames, and of different ones."""
    now = again.row.codes
    if now.shape != before.shape:
        return len(before), len(before)
    different = (now != before).any(axis=1)
    if exact or not different.any():
        return int(different.sum()), int(different.sum())
    if not isinstance(codec, Codec):  # its distances are unknown
        count = int(different.sum())
        return (count if count > OTHER_DEVICE_SHARE * len(before) else 0), count
    near = are_near_ties(codec, precision, again.features()[different], before[different], now[different])
    return int((~near).sum()), int(different.sum())


def _encoded_again(codec: AudioCodec, plan: Plan, unit: int, wanted: dict[str, TokenRow]) -> Iterator[_Again]:
    options = PlannedOptions.from_plan(plan)
    max_seconds, sound = options.max_seconds, options.sound
    # The id of a slice is the id of its recording and the slice's position.
    ids = set(wanted) | {name.rpartition("_")[0] for name in wanted}
    # The id of a channel is the id of its clip and the channel's number.
    files = ids | {name.rpartition(CHANNEL_MARK)[0] for name in ids if sound.channel == "each"}

    def clips() -> Iterator[Clip]:
        for source in plan.unit(unit).sources:
            for clip in clips_of(source):
                if isinstance(clip, Clip) and clip.id in files:
                    yield from (one for one in clips_of_channels([clip], sound) if one.id in ids)

    for clip, row in encode_clips(codec.clip_encoder, clips(), sound.for_channel(None), keep_damaged=True):
        if not isinstance(row, TokenRow):
            continue  # its rows are reported as missing
        slices: Iterable[TokenRow | AudioError] = [row]
        if max_seconds is not None:
            slices = cut_row(row, clip.span, max_seconds, codec.sample_rate, codec.frame_size)
        for cut in slices:
            if isinstance(cut, TokenRow) and cut.id in wanted:
                # First frame within the recording; the id of a slice ends in its position in samples.
                first = 0 if cut.id == row.id else int(cut.id.rpartition("_")[2]) // codec.frame_size
                yield _Again(cut, partial(_features, codec, clip, sound, first, first + len(cut.codes)))


def _features(codec: AudioCodec, clip: Clip, sound: SoundOptions, first: int, end: int) -> np.ndarray:
    assert isinstance(codec, Codec), "other codecs are compared by their codes"
    batching = codec.batching(on_gpu=codec.device.type == "cuda")
    encoder = PackedClipEncoder(batching, FeatureEncoder(codec.packed_encoder))
    blocks = encoder.encode_stream(ClipReader(clip, codec.sample_rate, sound).blocks())
    return torch.cat(list(blocks))[first:end].numpy()
