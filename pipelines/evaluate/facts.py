"""EvaluationFacts of an evaluation, and the rows that its units wrote."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from codectok.description import CodecDescription
from codectok.errors import damage_errors
from codectok.evaluation.metrics.base import Quantity
from codectok.pipelines.engine.output.unit_files import CLIPS
from codectok.storage import Storage

from .files import unit_of_clips


@dataclass(frozen=True)
class EvaluationFacts:
    """What was measured.

    Attributes:
        codecs: the codecs, by name.
        controls: names of the controls.
        quantities: metrics and shares of equal codes.
        sample_rate: at which reconstructions are compared.
        not_installed: metrics and controls that were left out, with what they need.
        preset: protocol that the test set follows; None for none.
    """

    codecs: Mapping[str, CodecDescription]
    controls: Sequence[str]
    quantities: Sequence[Quantity]
    sample_rate: int
    not_installed: Mapping[str, str]
    preset: str | None

    @property
    def systems(self) -> list[str]:
        """Names of the rows of a clip, in order."""
        return [*self.codecs, *self.controls]


def tables_of_units(storage: Storage) -> Iterator[tuple[int, pa.Table]]:
    """Yield the number and the rows of each unit with clips, in the order of units."""
    for name in sorted(storage.sizes(CLIPS), key=unit_of_clips):
        data = storage.read(name)
        with damage_errors(f"{storage.url}/{name}", "run the job again into another folder"):
            table = pq.read_table(pa.BufferReader(data), use_threads=False)
        yield unit_of_clips(name), table
