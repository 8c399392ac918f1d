"""Layout of audio tokens as data: strings, characters or ids of codes, their order, and structure tokens."""

from __future__ import annotations

import hashlib
import json
import re
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from codectok.config import MAX_CODEBOOK_SIZE, MAX_MODULES, StrictModel
from codectok.errors import InputError

FIELDS = ("code", "id", "number", "codebook", "group", "residual", "slot")
# Fields that hold the code, and fields that also distinguish codebooks.
CODE_FIELDS, COMPLETE_FIELDS = ("code", "id", "number"), ("id", "number")
STRUCTURE_FIELDS = ("begin_audio", "end_audio", "begin_inner_audio", "end_inner_audio", "padding")
PRIVATE_USE_AREAS = ((0xE000, 0xF8FF), (0xF0000, 0xFFFFD), (0x100000, 0x10FFFD))
FIELD = re.compile(r"\{(\w*)\}")
# Far more than any id has; more digits than that are text.
DIGITS = "([0-9]{1,20})"
LARGEST_NUMBER = 2**31 - 1

TokenString = Annotated[str, Field(min_length=1, max_length=200)]
Number = Annotated[int, Field(ge=0, le=LARGEST_NUMBER)]


class TokenLayout(StrictModel):
    """How a codec's codes are written in the vocabulary of a language model.

    Codes have numbers: `slot * slot_stride + code`, where a slot is the position of a codebook in a frame. The id of a
    code is the offset plus its number.

    Attributes:
        name: name of the layout, recorded in outputs.
        kind: "template": a string per code; "characters": a private-use character per code; "ids": fixed ids.
        token: string of a code with fields in braces: `code`, `id`, `codebook` (or `slot`), `group`, `residual`, and
            `number` (of the code, counted from `first_number`); for the kinds "template" and "ids".
        first_number: value of `number` for the first code.
        first_character, last_character: code points of the kind "characters"; the last one is by default the end of
            the private-use area.
        first_id: id of the first code; None if the language model or an option decides it.
        slot_stride: numbers of each slot; the size of a codebook by default.
        n_codebooks: codebooks that the codec must have; None for any number.
        order: "flat": frame by frame; "delayed": each codebook is `delay` frames later than the one before, frame by
            frame, with `padding` at empty places; "parallel": one column of all frames for each codebook, one behind
            the other.
        delay: frames between successive codebooks of the order "delayed".
        special_tokens: further tokens, in the order of their ids.
        special_tokens_place: ids of the special tokens directly "behind" or "before" those of the codes.
        begin_audio, end_audio: special tokens around codes; None without them.
        begin_inner_audio, end_inner_audio: special tokens around codes that are a prompt or are understood; by default
            `begin_audio` and `end_audio`.
        padding: special token at the empty places of the order "delayed".
    """

    name: Annotated[str, Field(pattern=r"^[\w.-]{1,100}$")]
    kind: Literal["template", "characters", "ids"]
    token: TokenString | None = None
    first_number: Number = 0
    first_character: Annotated[int, Field(ge=1, le=0x10FFFF)] | None = None
    last_character: Annotated[int, Field(ge=1, le=0x10FFFF)] | None = None
    first_id: Number | None = None
    slot_stride: Annotated[int, Field(ge=1, le=MAX_CODEBOOK_SIZE)] | None = None
    n_codebooks: Annotated[int, Field(ge=1, le=MAX_MODULES)] | None = None
    order: Literal["flat", "delayed", "parallel"] = "flat"
    delay: Annotated[int, Field(ge=1, le=1024)] = 1
    special_tokens: Annotated[tuple[TokenString, ...], Field(max_length=1024)] = ()
    special_tokens_place: Literal["behind", "before"] = "behind"
    begin_audio: str | None = None
    end_audio: str | None = None
    begin_inner_audio: str | None = None
    end_inner_audio: str | None = None
    padding: str | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_kind(self)
        if self.token is not None:
            check_token(self.token)
        if len(set(self.special_tokens)) < len(self.special_tokens):
            raise ValueError("special_tokens names a token twice")
        for field in STRUCTURE_FIELDS:
            token = getattr(self, field)
            if token is not None and token not in self.special_tokens:
                raise ValueError(f"{field} is {token!r}, which special_tokens lacks")
        if self.order == "delayed" and self.padding is None:
            raise ValueError("the order delayed needs a token for padding")
        if self.padding is not None and self.padding in {*self.begins, *self.ends}:
            raise ValueError("padding is also the begin or end of audio")
        return self

    @property
    def sha256(self) -> str:
        """Hash of everything that is not a default, the name included."""
        values = self.model_dump(mode="json", exclude_defaults=True)
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()

    @property
    def label(self) -> str:
        """Name and start of the hash."""
        return f"{self.name} {self.sha256[:12]}"

    @property
    def n_before(self) -> int:
        """Number of special tokens directly before the first code."""
        return len(self.special_tokens) if self.special_tokens_place == "before" else 0

    @property
    def begins(self) -> tuple[str, ...]:
        """Tokens that begin audio."""
        return tuple(token for token in (self.begin_audio, self.begin_inner_audio) if token is not None)

    @property
    def ends(self) -> tuple[str, ...]:
        """Tokens that end audio."""
        return tuple(token for token in (self.end_audio, self.end_inner_audio) if token is not None)

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """Pattern of a string that looks like the token of a code; named groups are fields."""
        if self.kind == "characters":
            first, last = self.characters
            return re.compile(f"[{re.escape(chr(first))}-{re.escape(chr(last))}]")
        pieces, seen = [], set[str]()
        for place, piece in enumerate(FIELD.split(self.token or "")):
            if place % 2 == 0:
                pieces.append(re.escape(piece))
            else:
                pieces.append(f"(?P={piece})" if piece in seen else f"(?P<{piece}>{DIGITS[1:]}")
                seen.add(piece)
        return re.compile("".join(pieces))

    @property
    def characters(self) -> tuple[int, int]:
        """First and last code point of codes, for the kind "characters"."""
        first = self.first_character
        assert first is not None, "checked when the layout is made"
        if self.last_character is not None:
            return first, self.last_character
        return first, next(end for start, end in PRIVATE_USE_AREAS if start <= first <= end)

    def is_code_token(self, token: str) -> bool:
        """Return True if `token` is the string of a code in any vocabulary of this layout."""
        found = self.pattern.fullmatch(token)
        if found is None or token in self.special_tokens:
            return False
        fields = {name: int(value) for name, value in found.groupdict().items()}
        canonical = self.token is None or FIELD.sub(lambda field: str(fields[field[1]]), self.token) == token
        return canonical and fields.get("number", self.first_number) >= self.first_number

    def check_fits(self, codebook_size: int, n_groups: int, n_residuals: int) -> None:
        """Raise `InputError` if the layout cannot hold the codes of a codec."""
        n_codebooks = n_groups * n_residuals
        stride = self.slot_stride or codebook_size
        where = f"The layout {self.name}"
        if self.n_codebooks not in (None, n_codebooks):
            raise InputError(
                f"{where} is for codecs of {self.n_codebooks} codebooks, but this codec has {n_codebooks}; choose"
                " another --layout."
            )
        if codebook_size > stride:
            raise InputError(
                f"{where} has {stride:,} ids for each codebook, but this codec has codebooks of {codebook_size:,}"
                " codes; choose another --layout."
            )
        if self.kind == "characters":
            first, last = self.characters
            room, needed = last - first + 1, n_codebooks * stride
            if needed > room:
                raise InputError(
                    f"{where} has {room:,} characters, from U+{first:04X} to U+{last:04X}, but this codec has"
                    f" {needed:,} codes; choose another --layout, or one that begins at U+F0000."
                )
        elif not self._distinguishes(n_groups, n_residuals):
            raise InputError(
                f"{where} writes codes of all codebooks alike, as {self.token}, but this codec has {n_codebooks}"
                " codebooks; choose a --layout whose token has the field {codebook}."
            )

    def _distinguishes(self, n_groups: int, n_residuals: int) -> bool:
        fields = set(FIELD.findall(self.token or ""))
        by_pair = (n_groups == 1 or "group" in fields) and (n_residuals == 1 or "residual" in fields)
        return by_pair or bool(fields & {*COMPLETE_FIELDS, "codebook", "slot"})


def is_private_use(text: str) -> bool:
    """Return True for a single character of a private-use area."""
    return len(text) == 1 and any(start <= ord(text) <= end for start, end in PRIVATE_USE_AREAS)


def check_kind(layout: TokenLayout) -> None:
    """Raise `ValueError` if the settings do not belong to the layout's kind."""
    needs = {"template": ("token",), "characters": ("first_character",), "ids": ("first_id", "token")}[layout.kind]
    for field in needs:
        if getattr(layout, field) is None:
            raise ValueError(f"the kind {layout.kind} needs {field}")
    foreign = [
        field
        for field in ("token", "first_character", "last_character", "first_id")
        if getattr(layout, field) is not None and field not in (*needs, *_OPTIONAL[layout.kind])
    ]
    if foreign:
        raise ValueError(f"the kind {layout.kind} has no {foreign[0]}")
    if layout.first_id is not None and layout.first_id < layout.n_before:
        raise ValueError("first_id leaves no room for the special tokens before it")
    if layout.kind == "characters":
        first, last = layout.first_character or 0, layout.last_character
        if last is None and not any(start <= first <= end for start, end in PRIVATE_USE_AREAS):
            raise ValueError(
                f"U+{first:04X} is outside of the private-use areas (U+E000, U+F0000, U+100000); name a last_character"
            )
        if last is not None and last < first:
            raise ValueError("last_character lies before first_character")
        if first <= 0xDFFF and (last or first) >= 0xD800:
            raise ValueError("the characters contain surrogates, which are not text")


_OPTIONAL: dict[str, tuple[str, ...]] = {"template": (), "characters": ("last_character",), "ids": ()}


def check_token(token: str) -> None:
    """Raise `ValueError` if a template cannot be read back."""
    literals, fields = FIELD.split(token)[::2], FIELD.findall(token)
    unknown = [field for field in fields if field not in FIELDS]
    if unknown:
        raise ValueError(f"token has a field {{{unknown[0]}}}; choose from {', '.join(FIELDS)}")
    if not set(fields) & set(CODE_FIELDS):
        raise ValueError(f"token needs one of the fields {', '.join(CODE_FIELDS)}")
    if any("{" in literal or "}" in literal for literal in literals):
        raise ValueError("token has a brace without a field")
    if any(_only_digits(literal) for literal in literals[1:-1]):
        raise ValueError("token needs a character that is not a digit between its fields")
    if _only_digits(literals[0]) and _only_digits(literals[-1]):
        raise ValueError("token needs a character that is not a digit before or behind its fields")


def _only_digits(text: str) -> bool:
    return all("0" <= character <= "9" for character in text)


def describe_error(error: Any) -> str:
    """Return the message of pydantic's first error in one line, with its place."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    return f"{where}: {message}" if where else str(message)
