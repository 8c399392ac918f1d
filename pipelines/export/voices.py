"""Which voice a row is to be spoken in, for templates that ask for one."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from codectok.exports.sequences.documents import MissingPartError, Voice
from codectok.tokens.table import TokenRow, hash_of_id

BY_SPEAKER = "speaker"
# Clips of each speaker that are held in memory, and how long they may be.
CLIPS_OF_A_SPEAKER = 8
MAX_SECONDS = 15.0


def same_voice(voice: TokenRow) -> Voice:
    """One voice for all rows but its own."""

    def codes(row: TokenRow) -> np.ndarray:
        if (row.dataset, row.id) == (voice.dataset, voice.id):
            raise MissingPartError(f"The row {row.id} is the voice itself.")
        return voice.codes

    return codes


def voices_of_speakers(rows: Iterable[TokenRow], code_type: type[np.unsignedinteger]) -> Voice:
    """For each row another clip of its speaker among `rows`, always the same one; codes are held as `code_type`.

    Datasets number their speakers each for itself: a speaker is one of a dataset.
    """
    clips: dict[tuple[str, str], list[tuple[str, np.ndarray]]] = {}
    for row in rows:
        if row.speaker and row.duration <= MAX_SECONDS:
            own = clips.setdefault((row.dataset, row.speaker), [])
            if len(own) < CLIPS_OF_A_SPEAKER:
                own.append((row.id, row.codes.astype(code_type)))

    def voice(row: TokenRow) -> np.ndarray:
        if not row.speaker:
            raise MissingPartError(f"The row {row.id} has no speaker.")
        own = clips.get((row.dataset, row.speaker), [])
        others = [codes for row_id, codes in own if row_id != row.id]
        if not others:
            raise MissingPartError(f"There is no other clip of the speaker of {row.id} in its part of the table.")
        return others[hash_of_id(row.id) % len(others)]

    return voice
