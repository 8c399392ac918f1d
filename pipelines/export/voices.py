"""Voices for templates that imitate one."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from codectok.exports.sequences.documents import MissingFieldError
from codectok.exports.sequences.items import Voice
from codectok.tokens.table import TokenRow, hash_of_id

BY_SPEAKER = "speaker"
# Clips held in memory per speaker, and their largest duration in seconds.
CLIPS_OF_A_SPEAKER = 8
MAX_SECONDS = 15.0


def same_voice(voice: TokenRow) -> Voice:
    """Return a `Voice` that is the same for all rows; the row of the voice itself is refused."""

    def codes(row: TokenRow) -> np.ndarray:
        if (row.dataset, row.id) == (voice.dataset, voice.id):
            raise MissingFieldError(f"The row {row.id} is the voice itself.")
        return voice.codes

    return codes


def voices_of_speakers(rows: Iterable[TokenRow], code_type: type[np.unsignedinteger]) -> Voice:
    """Return a `Voice` that picks another clip of the row's speaker among `rows`, deterministically by the row's id.

    Speakers are identified by dataset and name, since datasets number their speakers independently.

    Args:
        rows: rows with candidates for voices.
        code_type: type in which codes are held in memory.
    """
    clips: dict[tuple[str, str], list[tuple[str, np.ndarray]]] = {}
    for row in rows:
        if row.speaker and row.duration <= MAX_SECONDS:
            own = clips.setdefault((row.dataset, row.speaker), [])
            if len(own) < CLIPS_OF_A_SPEAKER:
                own.append((row.id, row.codes.astype(code_type)))

    def voice(row: TokenRow) -> np.ndarray:
        if not row.speaker:
            raise MissingFieldError(f"The row {row.id} has no speaker.")
        own = clips.get((row.dataset, row.speaker), [])
        others = [codes for row_id, codes in own if row_id != row.id]
        if not others:
            raise MissingFieldError(f"The row {row.id} has no other clip of its speaker in its part of the table.")
        return others[hash_of_id(row.id) % len(others)]

    return voice
