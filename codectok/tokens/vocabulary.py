"""Ids and token strings of codes in the vocabulary of a language model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self

import numpy as np

from codectok.description import CodecDescription
from codectok.errors import InputError

from .layouts.layout import FIELD, TokenLayout
from .layouts.loading import default_layout
from .layouts.orders import arrange

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


@dataclass(frozen=True)
class Vocabulary:
    """Ids and strings of a codec's codes: each codebook has a range of ids, and special tokens follow.

    The id of a code is `offset + (group * n_residuals + residual) * codebook_size + code`, unless the layout has a
    larger stride.

    Attributes:
        codebook_size: codes per codebook.
        n_groups, n_residuals: shape of the quantizer.
        offset: id of the first code, usually the number of rows of the language model's embedding.
        layout: strings of codes, their order, and special tokens; UniTTS's by default.

    Raises:
        InputError: a size is below 1, ids do not fit 32 bits, or the layout does not fit the codec.
    """

    codebook_size: int
    n_groups: int = 1
    n_residuals: int = 1
    offset: int = DEFAULT_OFFSET
    layout: TokenLayout = field(default_factory=default_layout)

    def __post_init__(self) -> None:
        if min(self.codebook_size, self.n_groups, self.n_residuals) < 1:
            raise InputError("A vocabulary needs at least one code, one group and one residual layer.")
        if self.first < 0 or self.end > LARGEST_ID:
            raise InputError(f"Ids from {self.first} to {self.end - 1} are impossible; they go from 0 to {LARGEST_ID}.")
        self.layout.check_fits(self.codebook_size, self.n_groups, self.n_residuals)
        if self.layout.first_id not in (None, self.offset):
            raise InputError(
                f"The layout {self.layout.name} has its codes from {self.layout.first_id} on, not from {self.offset};"
                " leave --offset out."
            )
        taken = next((name for name in self.special_tokens if self.number_of(name) is not None), None)
        if taken is not None:
            raise InputError(f"The layout {self.layout.name} has the special token {taken}, which is also a code.")

    @classmethod
    def for_codec(
        cls, codec: CodecDescription, offset: int = DEFAULT_OFFSET, layout: TokenLayout | None = None
    ) -> Self:
        """Create the vocabulary of a codec from `codec.describe()` or the metadata of a table.

        Raises:
            InputError: the codec has several codebooks, and their grouping is unknown; or the layout does not fit.
        """
        n_residuals = codec.n_residuals
        if n_residuals is None:
            if codec.n_codebooks > 1:
                raise InputError(
                    f"The grouping of the {codec.n_codebooks} codebooks of {codec.codec_name} is not recorded;"
                    " tokenize again with this version."
                )
            n_residuals = 1
        n_groups = codec.n_codebooks // n_residuals
        return cls(codec.codebook_size, n_groups, n_residuals, offset, layout or default_layout())

    @property
    def n_codebooks(self) -> int:
        """Codes per frame."""
        return self.n_groups * self.n_residuals

    @property
    def stride(self) -> int:
        """Ids of each codebook: its size, or more if the layout says so."""
        return self.layout.slot_stride or self.codebook_size

    @property
    def n_codes(self) -> int:
        """Number of ids of codes, over all codebooks."""
        return self.n_codebooks * self.stride

    @property
    def special_tokens(self) -> tuple[str, ...]:
        """Tokens that accompany codes, in the order of their ids."""
        return self.layout.special_tokens

    @property
    def first(self) -> int:
        """First id of codes and special tokens."""
        return self.offset - self.layout.n_before

    @property
    def end(self) -> int:
        """First id behind codes and special tokens, that is, the embedding rows a language model needs."""
        return self.first + self.n_codes + len(self.special_tokens)

    def end_with(self, special_ids: Iterable[int]) -> int:
        """Return `end`, or the first id behind special tokens with other ids (of a tokenizer) if that is larger."""
        return max((self.end, *(1 + token_id for token_id in special_ids)))

    def ids_of(
        self, codes: np.ndarray, padding_id: int | None = None, dtype: type[np.signedinteger[Any]] = np.int64
    ) -> np.ndarray:
        """Convert codes to ids.

        Args:
            codes: integers [n_frames, n_codebooks].
            padding_id: id at empty places of the order "delayed"; by default that of the layout's padding token.
            dtype: type of the ids, which must hold them.

        Returns:
            integers [n_frames * n_codebooks], frame by frame, or in the order of the layout, which may add padding.

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
        ids: np.ndarray = codes.astype(dtype)
        ids += self._first_ids.astype(dtype)
        if padding_id is None and self.layout.padding is not None:
            padding_id = self.id_of(self.layout.padding)
        return arrange(ids, self.layout, padding_id)

    def codes_of(self, ids: np.ndarray) -> np.ndarray:
        """Convert ids to codes, the inverse of `ids_of`; see `codectok.tokens.layouts.reading` for ids of a model.

        Args:
            ids: integers [n_frames * n_codebooks], frame by frame, or in the order of the layout.

        Returns:
            int64 [n_frames, n_codebooks].

        Raises:
            InputError: an id is not the id of a code, frames are incomplete, or codebooks are in another order.
        """
        if self.layout.order != "flat":
            from .layouts.reading import read_ids

            return read_ids(ids, self, strict=True).codes
        if ids.ndim != 1 or len(ids) % self.n_codebooks or not np.issubdtype(ids.dtype, np.integer):
            raise InputError(
                f"Ids of shape {list(ids.shape)} ({ids.dtype}) are not whole frames of {self.n_codebooks} codes."
            )
        _refuse_outside(ids, self.offset, self.offset + self.n_codes, "the id of a code")
        codes: np.ndarray = ids.astype(np.int64).reshape(-1, self.n_codebooks) - self._first_ids
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
            return self._code_token(number)
        if self.first <= token_id < self.end:
            return self.special_tokens[token_id - self._first_special]
        raise InputError(f"The id {token_id} is not an audio token; the range is {self.first} to {self.end - 1}.")

    def id_of(self, token: str) -> int:
        """Return the id of a token's string, the inverse of `token`."""
        if token in self.special_tokens:
            return self._first_special + self.special_tokens.index(token)
        number = self.number_of(token)
        if number is None:
            raise InputError(f"The string {token!r} is not an audio token of this vocabulary.")
        return self.offset + number

    def number_of(self, token: str) -> int | None:
        """Return the number of a code, counted from the first one, by its string; None if it is not a code's string."""
        layout = self.layout
        found = layout.pattern.fullmatch(token)
        if found is None:
            return None
        if layout.kind == "characters":
            number = ord(token) - layout.characters[0]
        else:
            number = self._number_from({name: int(value) for name, value in found.groupdict().items()})
        # Fields of a string may contradict each other, or have zeros in front.
        return number if 0 <= number < self.n_codes and self._code_token(number) == token else None

    def tokens(self) -> Iterator[str]:
        """Iterate over all strings, in the order of their ids."""
        return (self.token(token_id) for token_id in range(self.first, self.end))

    @property
    def _first_special(self) -> int:
        return self.first if self.layout.n_before else self.offset + self.n_codes

    @cached_property
    def _first_ids(self) -> np.ndarray:
        return self.offset + self.stride * np.arange(self.n_codebooks, dtype=np.int64)

    def _code_token(self, number: int) -> str:
        layout = self.layout
        if layout.kind == "characters":
            return chr(layout.characters[0] + number)
        slot, code = divmod(number, self.stride)
        group, residual = divmod(slot, self.n_residuals)
        values = {"code": code, "id": self.offset + number, "number": layout.first_number + number}
        values |= {"codebook": slot, "slot": slot, "group": group, "residual": residual}
        return FIELD.sub(lambda found: str(values[found[1]]), layout.token or "")

    def _number_from(self, fields: dict[str, int]) -> int:
        """Return the number that a string's fields stand for; strings are checked by writing them again."""
        if "id" in fields:
            return fields["id"] - self.offset
        if "number" in fields:
            return fields["number"] - self.layout.first_number
        group, residual = fields.get("group", 0), fields.get("residual", 0)
        slot = fields.get("codebook", fields.get("slot", group * self.n_residuals + residual))
        return slot * self.stride + fields["code"]

    def _codebook_name(self, number: int) -> str:
        group, residual = divmod(number, self.n_residuals)
        return f"g{group}r{residual}"


def _refuse_outside(values: np.ndarray, first: int, end: int, what: str) -> None:
    if values.size and (int(values.min()) < first or int(values.max()) >= end):
        place = int(np.argmax((values < first) | (values >= end)))
        found = values.reshape(-1)[place]
        raise InputError(f"{found} at place {place} is not {what}; the range is {first} to {end - 1}.")
