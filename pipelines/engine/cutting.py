"""How the sources of a job are cut into units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class CuttingPolicy:
    """How sources are cut into units.

    Attributes:
        unit_seconds: estimated audio of a unit.
        validation: share of the files whose units are marked as validation.
        part_bytes: bytes of the sources of a unit, for sources that are read row by row; None cuts by `unit_seconds`.
        whole_files: units of `part_bytes` are neighbouring files instead of a share of the rows of every dataset.
        in_every_unit: datasets that every unit of `part_bytes` needs rows of.
    """

    unit_seconds: float
    validation: float = 0.0
    part_bytes: float | None = None
    whole_files: bool = False
    in_every_unit: Sequence[str] = ()
