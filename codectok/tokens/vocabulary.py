"""Ids and token strings of codes in the vocabulary of a language model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np

from codectok.description import CodecDescription
from codectok.errors import InputError

# Rows of the embedding of Qwen2.5-7B; its tokenizer has fewer tokens.
DEFAULT_OFFSET = 152_064
BEGIN_AUDIO, END_AUDIO = "<|beginofaudio|>", "<|endofaudio|>"
BEGIN_INNER_AUDIO, END_INNER_AUDIO = "<|inter_audio_begin|>", "<|inter_audio_end|>"
SPECIAL_TOKENS = (
    BEGIN_AUDIO,
    END_AUDIO,
    "<|sil|>",
    BEGIN_INNER_AUDIO,
    END_INNER_AUDIO,
    "<|cot_begin|>",
    "<|cot_end|>",
    "<|unused600|>",
)
# Ids are stored as 32-bit numbers.
LARGEST_ID = 2**31 - 1
_CODE_TOKEN = re.compile(r"<\|g(\d+)r(\d+)_(\d+)\|>", re.ASCII)


@dataclass(frozen=True)
class Vocabulary:
    """Ids and strings of a codec's codes: each codebook has a range of ids, and special tokens follow.

    The id of a code is `offset + (group * n_residuals + residual) * codebook_size + code`.

    Attributes:
        codebook_size: codes per codebook.
        n_groups, n_residuals: shape of the quantizer.
        offset: id of the first code, usually the number of rows of the language model's embedding.

    Raises:
        InputError: a size is below 1, or ids do not fit 32 bits.
    """

    codebook_size: int
    n_groups: int = 1
    n_residuals: int = 1
    offset: int = DEFAULT_OFFSET

    def __post_init__(self) -> None:
        if min(self.codebook_size, self.n_groups, self.n_residuals) < 1:
            raise InputError("A vocabulary needs at least one code, one group and one residual layer.")
        if self.offset < 0 or self.end > LARGEST_ID:
            raise InputError(
                f"Ids from {self.offset} to {self.end - 1} are impossible; they go from 0 to {LARGEST_ID}."
            )

    @classmethod
    def for_codec(cls, codec: CodecDescription, offset: int = DEFAULT_OFFSET) -> Self:
        """Create the vocabulary of a codec from `codec.describe()` or the metadata of a table.

        Raises:
            InputError: the codec has several codebooks, and their grouping is unknown.
        """
        n_residuals = codec.n_residuals
        if n_residuals is None:
            if codec.n_codebooks > 1:
                raise InputError(
                    f"The grouping of the {codec.n_codebooks} codebooks of {codec.codec_name} is not recorded;"
                    " tokenize again with this version."
                )
            n_residuals = 1
        return cls(codec.codebook_size, codec.n_codebooks // n_residuals, n_residuals, offset)

    @property
    def n_codebooks(self) -> int:
        """Codes per frame."""
        return self.n_groups * self.n_residuals

    @property
    def n_codes(self) -> int:
        """Number of ids of codes, over all codebooks."""
        return self.n_codebooks * self.codebook_size

    @property
    def end(self) -> int:
        """First id behind codes and special tokens, that is, the embedding rows a language model needs."""
        return self.offset + self.n_codes + len(SPECIAL_TOKENS)

    def end_with(self, special_ids: Iterable[int]) -> int:
        """Return `end`, or the first id behind special tokens with other ids (of a tokenizer) if that is larger."""
        return max((self.end, *(1 + token_id for token_id in special_ids)))

    def ids_of(self, codes: np.ndarray) -> np.ndarray:
        """Convert codes to ids.

        Args:
            codes: integers [n_frames, n_codebooks].

        Returns:
            int64 [n_frames * n_codebooks], frame by frame.

        Raises:
            InputError: the shape is wrong, or a code is outside its codebook.
        """
        if codes.ndim != 2 or codes.shape[1] != self.n_codebooks:
            raise InputError(
                f"Codes have shape {list(codes.shape)}; this vocabulary needs [frames, {self.n_codebooks}]."
            )
        if not np.issubdtype(codes.dtype, np.integer):
            raise InputError(f"Codes must be integers, not {codes.dtype}.")
        _refuse_outside(codes, 0, self.codebook_size, "a code")
        return (codes.astype(np.int64) + self._first_ids).reshape(-1)

    def codes_of(self, ids: np.ndarray) -> np.ndarray:
        """Convert ids to codes, the inverse of `ids_of`.

        Args:
            ids: integers [n_frames * n_codebooks], frame by frame.

        Returns:
            int64 [n_frames, n_codebooks].

        Raises:
            InputError: an id is not the id of a code, frames are incomplete, or codebooks are in another order.
        """
        if ids.ndim != 1 or len(ids) % self.n_codebooks or not np.issubdtype(ids.dtype, np.integer):
            raise InputError(
                f"Ids of shape {list(ids.shape)} ({ids.dtype}) are not whole frames of {self.n_codebooks} codes."
            )
        _refuse_outside(ids, self.offset, self.offset + self.n_codes, "the id of a code")
        codes = ids.astype(np.int64).reshape(-1, self.n_codebooks) - self._first_ids
        wrong = (codes < 0) | (codes >= self.codebook_size)
        if wrong.any():
            place = int(np.argmax(wrong))
            expected = self._codebook_name(place % self.n_codebooks)
            raise InputError(f"The id {ids[place]} at place {place} is not a code of the codebook {expected}.")
        return codes

    def token(self, token_id: int) -> str:
        """Return the string of an id; raise `InputError` if it is not the id of a code or special token."""
        number = token_id - self.offset
        if 0 <= number < self.n_codes:
            return f"<|{self._codebook_name(number // self.codebook_size)}_{token_id}|>"
        if self.n_codes <= number < self.n_codes + len(SPECIAL_TOKENS):
            return SPECIAL_TOKENS[number - self.n_codes]
        raise InputError(f"The id {token_id} is not an audio token; the range is {self.offset} to {self.end - 1}.")

    def id_of(self, token: str) -> int:
        """Return the id of a token's string, the inverse of `token`."""
        if token in SPECIAL_TOKENS:
            return self.offset + self.n_codes + SPECIAL_TOKENS.index(token)
        found = _CODE_TOKEN.fullmatch(token)
        token_id = int(found[3]) if found else -1
        if self.offset <= token_id < self.offset + self.n_codes and self.token(token_id) == token:
            return token_id
        raise InputError(f"The string {token!r} is not an audio token of this vocabulary.")

    def tokens(self) -> Iterator[str]:
        """Iterate over all strings, in the order of their ids."""
        return (self.token(token_id) for token_id in range(self.offset, self.end))

    @property
    def _first_ids(self) -> np.ndarray:
        return self.offset + self.codebook_size * np.arange(self.n_codebooks, dtype=np.int64)

    def _codebook_name(self, number: int) -> str:
        group, residual = divmod(number, self.n_residuals)
        return f"g{group}r{residual}"


def is_code_token(token: str) -> bool:
    """Return True if `token` is the string of a code in any vocabulary."""
    return _CODE_TOKEN.fullmatch(token) is not None


def _refuse_outside(values: np.ndarray, first: int, end: int, what: str) -> None:
    if values.size and (int(values.min()) < first or int(values.max()) >= end):
        place = int(np.argmax((values < first) | (values >= end)))
        found = values.reshape(-1)[place]
        raise InputError(f"{found} at place {place} is not {what}; the range is {first} to {end - 1}.")
