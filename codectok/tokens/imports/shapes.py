"""Turns codes of any shape into frames of a codec."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from codectok.choices import CodeLayout
from codectok.errors import AudioError, InputError
from codectok.tokens.vocabulary import Vocabulary

MAX_AXES = 3  # a batch of one clip, frames and codebooks


@dataclass(frozen=True)
class CodeForm:
    """Shape and range of the codes of one clip.

    Attributes:
        n_codebooks, codebook_size: of the codec.
        layout: "frames" for [n_frames, n_codebooks], or flat frame by frame; "codebooks" for [n_codebooks, n_frames],
            or flat codebook by codebook; "auto" to decide by the shape, and refuse ambiguous ones.
        offset: id of the first code, if codes are ids as exports write them; None for plain codes.

    Raises:
        InputError: the offset is impossible.
    """

    n_codebooks: int
    codebook_size: int
    layout: CodeLayout = "auto"
    offset: int | None = None

    def __post_init__(self) -> None:
        if self.offset is not None:
            self._vocabulary(self.offset)

    def frames_of(self, values: np.ndarray, offset: int | None = None) -> np.ndarray:
        """Return codes int64 [n_frames, n_codebooks].

        Args:
            values: integers of any shape.
            offset: used if the form has none; None for plain codes.

        Raises:
            AudioError: the codes are "empty" or an "invalid_row".
        """
        offset = self.offset if self.offset is not None else offset
        if not values.size:
            raise AudioError("It has no codes.", "empty")
        if not np.issubdtype(values.dtype, np.integer):
            raise AudioError(f"Its codes are not integers, but {values.dtype}.", "invalid_row")
        frames = self._arranged(values, ordered=offset is not None)
        lowest, largest = int(frames.min()), int(frames.max())
        if offset is None:
            if lowest < 0 or largest >= self.codebook_size:
                wrong = lowest if lowest < 0 else largest
                raise AudioError(
                    f"It has the code {wrong}; codes of this codec go from 0 to {self.codebook_size - 1}"
                    " (ids with an offset need --offset).",
                    "invalid_row",
                )
            return frames.astype(np.int64)
        if lowest < 0 or largest > np.iinfo(np.int64).max:
            raise AudioError(f"It has the impossible id {lowest if lowest < 0 else largest}.", "invalid_row")
        try:
            return self._vocabulary(offset).codes_of(frames.astype(np.int64).reshape(-1))
        except InputError as error:
            raise AudioError(str(error), "invalid_row") from None

    def _vocabulary(self, offset: int) -> Vocabulary:
        # Ids do not depend on the grouping of the codebooks.
        return Vocabulary(self.codebook_size, self.n_codebooks, 1, offset)

    def _arranged(self, values: np.ndarray, ordered: bool) -> np.ndarray:
        """Return the values as [n_frames, n_codebooks]; `ordered` if their range shows the codebook of each."""
        shape, count = list(values.shape), self.n_codebooks
        if values.ndim == MAX_AXES and shape[0] == 1:
            values = values[0]
        if values.ndim == 1:
            return self._unflattened(values, ordered)
        if values.ndim != 2 or count not in values.shape:
            raise AudioError(
                f"Its codes have the shape {shape}, but the codec has {count} codebooks;"
                f" [frames, {count}] and [{count}, frames] are possible.",
                "invalid_row",
            )
        if self.layout == "auto" and values.shape[0] == values.shape[1] and count > 1:
            raise AudioError(
                f"Its codes have the shape {shape}, so that frames and codebooks cannot be told apart;"
                " pass --layout frames or --layout codebooks.",
                "invalid_row",
            )
        layout = self.layout
        if layout == "auto":
            layout = "frames" if values.shape[1] == count else "codebooks"
        if values.shape[1 if layout == "frames" else 0] != count:
            raise AudioError(f"Its codes have the shape {shape}, which contradicts --layout {layout}.", "invalid_row")
        return values if layout == "frames" else values.T

    def _unflattened(self, values: np.ndarray, ordered: bool) -> np.ndarray:
        count = self.n_codebooks
        if len(values) % count:
            raise AudioError(f"Its {len(values)} codes are not whole frames of {count} codebooks.", "invalid_row")
        if self.layout == "auto" and count > 1 and not ordered:
            raise AudioError(
                f"Its codes are flat and the codec has {count} codebooks, so that their order is unknown;"
                " pass --layout frames or --layout codebooks.",
                "invalid_row",
            )
        return values.reshape(count, -1).T if self.layout == "codebooks" else values.reshape(-1, count)


def array_of(value: object) -> np.ndarray:
    """Return the integers of a list, or of lists of equal length in it, as an array.

    Raises:
        AudioError: the value holds anything else ("invalid_row").
    """
    if not isinstance(value, list):
        raise AudioError(f"Its codes are not a list, but {type(value).__name__}.", "invalid_row")
    shape, flat = [len(value)], value
    while flat and any(type(one) is list for one in flat):
        lengths = {len(one) if type(one) is list else -1 for one in flat}
        if len(lengths) > 1:
            raise _ragged()
        if len(shape) == MAX_AXES:
            raise AudioError(f"Its codes are nested in more than {MAX_AXES} lists.", "invalid_row")
        shape.append(lengths.pop())
        flat = list(chain.from_iterable(flat))
    others = {type(one).__name__ for one in flat if type(one) is not int}
    if others:
        raise AudioError(f"Its codes are not integers, but {', '.join(sorted(others))}.", "invalid_row")
    try:
        return np.array(flat, np.int64).reshape(shape)
    except OverflowError:
        raise AudioError("It has a code that no codec has, beyond 64 bits.", "invalid_row") from None


def reshaped(flat: np.ndarray, n_rows: int, lengths: Sequence[np.ndarray]) -> np.ndarray:
    """Return the flat values of nested lists as an array of `n_rows`; `lengths` holds those of the inner lists.

    Raises:
        AudioError: inner lists differ in length ("invalid_row").
    """
    shape = [n_rows]
    for found in lengths:
        if len(found) and int(found.min()) != int(found.max()):
            raise _ragged()
        shape.append(int(found[0]) if len(found) else 0)
    return flat.reshape(shape)


def _ragged() -> AudioError:
    return AudioError("Its frames differ in length: some codebooks have more codes than others.", "invalid_row")
