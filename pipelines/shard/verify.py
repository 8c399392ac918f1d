"""Verifier of shards: their samples, their index and `shards.json`."""

from __future__ import annotations

import io
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import soundfile
from pydantic import ValidationError

from codectok.audio.segments import limits_in_samples
from codectok.errors import VerificationError
from codectok.keys import VALID_KEY
from codectok.pipelines.engine.output.records import UnitRecord
from codectok.pipelines.engine.planning.plan import Plan
from codectok.pipelines.engine.verifier import OutputVerifier
from codectok.shards import (
    INDEX_SCHEMA,
    MANIFEST_FILE,
    IndexedSample,
    Sample,
    ShardManifest,
    index_name,
    parse_index,
    parse_manifest,
)
from codectok.storage import Storage

from .options import PlannedLimits


class ShardVerifier(OutputVerifier):
    """Checks the samples of every tar, its index, and `shards.json`."""

    described_files = (MANIFEST_FILE,)

    def __init__(self, storage: Storage, plan: Plan, records: Sequence[UnitRecord]) -> None:
        super().__init__(storage, plan, records)
        self._manifest = _manifest(storage)
        _compare_manifest(self._manifest, records)
        self._entries = {entry.name: entry for entry in self._manifest.shards}
        limits = PlannedLimits.from_plan(plan)
        rate = self._manifest.sample_rate
        self._shortest, self._longest = limits_in_samples(limits.min_seconds, limits.max_seconds, rate)
        # Name of the tar of each key.
        self._keys: dict[str, str] = {}

    def check(self, record: UnitRecord, name: str) -> None:
        """Check the samples of a tar."""
        entry = self._entries.get(name)
        if entry is None:
            return
        index = _read_index(self.storage, name)
        seconds, count = 0.0, 0
        seen: set[str] = set()
        categories: Counter[str] = Counter()
        for key, offset, audio, sample in _samples(self.storage, name):
            where = f"The sample {key} in {self.storage.url}/{name}"
            # Threads share the keys; `setdefault` of a dictionary is atomic.
            if self._keys.setdefault(key, name) != name or key in seen:
                raise VerificationError(f"{where} has the same key as another sample, in {self._keys[key]}.")
            seen.add(key)
            self._check_sample(where, key, audio, sample)
            if index[count : count + 1] != [IndexedSample(key, offset, len(audio), sample.n_samples, sample.category)]:
                raise VerificationError(f"{where} is not at the place that the index names.")
            seconds += sample.duration
            count += 1
            if sample.category is not None:
                categories[sample.category] += 1
        if count != entry.samples or abs(seconds - entry.seconds) > 1e-6 * max(1.0, seconds):
            raise VerificationError(
                f"{self.storage.url}/{name} has {count} samples of {seconds:g} s, but {MANIFEST_FILE} says"
                f" {entry.samples} of {entry.seconds:g} s."
            )
        if categories != entry.categories:
            raise VerificationError(
                f"{self.storage.url}/{name} has other categories than {MANIFEST_FILE}: {dict(categories)}."
            )

    def _check_sample(self, where: str, key: str, audio: bytes, sample: Sample) -> None:
        if not VALID_KEY.fullmatch(key):
            raise VerificationError(f"{where} has a key with characters other than letters, digits, _ and -.")
        if sample.sample_rate != self._manifest.sample_rate:
            raise VerificationError(f"{where} is at {sample.sample_rate} Hz, not {self._manifest.sample_rate} Hz.")
        _check_audio(where, audio, sample)
        if not self._shortest <= sample.n_samples <= self._longest:
            raise VerificationError(f"{where} lasts {sample.duration:g} s, outside the limits of the job.")


def _manifest(storage: Storage) -> ShardManifest:
    try:
        return parse_manifest(storage.read(MANIFEST_FILE), f"{storage.url}/{MANIFEST_FILE}")
    except FileNotFoundError:
        raise VerificationError(f"{storage.url}/{MANIFEST_FILE} is missing.") from None


def _compare_manifest(manifest: ShardManifest, records: Sequence[UnitRecord]) -> None:
    by_name = {file.name: (record, file) for record in records for file in record.files}
    tars = {name for name in by_name if name.endswith(".tar")}
    for entry in manifest.shards:
        if entry.name not in tars:
            raise VerificationError(f"{MANIFEST_FILE} names {entry.name}, which no unit wrote.")
        record, file = by_name[entry.name]
        total = record.total
        listed = (entry.bytes, entry.sha256, entry.samples, entry.seconds, entry.split, entry.categories)
        if listed != (file.bytes, file.sha256, total.rows, total.seconds, record.split, record.categories):
            raise VerificationError(f"{MANIFEST_FILE} and the record of its unit disagree about {entry.name}.")
    named = Counter(entry.name for entry in manifest.shards)
    for name in sorted(tars - named.keys()):
        raise VerificationError(f"{MANIFEST_FILE} does not name {name}.")
    for name, count in named.items():
        if count > 1:
            raise VerificationError(f"{MANIFEST_FILE} names {name} {count} times.")


def _check_audio(where: str, audio: bytes, sample: Sample) -> None:
    try:
        with soundfile.SoundFile(io.BytesIO(audio)) as file:
            samples = file.read(dtype="float32")
            found = (file.samplerate, file.channels, len(samples))
    except soundfile.LibsndfileError as error:
        raise VerificationError(f"{where} cannot be decoded: {error.error_string.strip()}") from None
    if found != (sample.sample_rate, 1, sample.n_samples):
        raise VerificationError(
            f"{where} has {found[2]} samples in {found[1]} channels at {found[0]} Hz, but its JSON says"
            f" {sample.n_samples} in 1 at {sample.sample_rate} Hz."
        )
    if abs(sample.duration * sample.sample_rate - sample.n_samples) > 0.5:
        raise VerificationError(f"{where} has a duration that differs from the number of its samples.")
    if not np.isfinite(samples).all():
        raise VerificationError(f"{where} has samples that are not finite.")


def _read_index(storage: Storage, shard: str) -> list[IndexedSample]:
    name = index_name(shard)
    try:
        table = parse_index(storage.read(name))
        return [IndexedSample(**row) for row in table.select(INDEX_SCHEMA.names).to_pylist()]
    except (FileNotFoundError, pa.ArrowInvalid, KeyError):
        raise VerificationError(f"The index {storage.url}/{name} is missing or damaged.") from None


def _samples(storage: Storage, shard: str) -> Iterator[tuple[str, int, bytes, Sample]]:
    """Yield key, offset of the audio, its bytes and the description of each sample."""
    where = f"{storage.url}/{shard}"
    try:
        with storage.open(shard) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            waiting: tuple[str, int, bytes] | None = None
            for member in tar:
                if (member.mtime, member.uid, member.gid, member.isfile()) != (0, 0, 0, True):
                    raise VerificationError(
                        f"The member {member.name} of {where} is not a plain file without time and owner."
                    )
                key, _, suffix = member.name.partition(".")
                opened = tar.extractfile(member)
                assert opened is not None, "it is a file"
                data = opened.read()
                if waiting is None:
                    if suffix not in ("flac", "wav"):
                        raise VerificationError(f"The sample {key} of {where} does not begin with its audio.")
                    waiting = (key, member.offset_data, data)
                    continue
                if (key, suffix) != (waiting[0], "json"):
                    raise VerificationError(f"The sample {waiting[0]} of {where} has no JSON beside its audio.")
                try:
                    sample = Sample.model_validate_json(data)
                except ValidationError:
                    raise VerificationError(f"The JSON of the sample {key} of {where} is damaged.") from None
                yield *waiting, sample
                waiting = None
            if waiting is not None:
                raise VerificationError(f"The sample {waiting[0]} of {where} has no JSON beside its audio.")
    except (tarfile.TarError, EOFError) as error:
        raise VerificationError(f"{where} cannot be read as a tar: {error}.") from None
