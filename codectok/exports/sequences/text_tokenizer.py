"""Text tokenizer of a language model, and ids of special tokens."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from codectok.errors import InputError
from codectok.exports.tokenizer import load_tokenizer, tokenizer_errors
from codectok.tokens.layouts.layout import is_private_use
from codectok.tokens.layouts.loading import default_layout, preset_of_token
from codectok.tokens.vocabulary import (
    BEGIN_AUDIO,
    BEGIN_INNER_AUDIO,
    DEFAULT_OFFSET,
    END_AUDIO,
    END_INNER_AUDIO,
    LARGEST_ID,
    SPECIAL_TOKENS,
    Vocabulary,
)

from .templates import END_OF_SEQUENCE

# `<|endoftext|>` of Qwen2.5, whose embedding the default offset assumes.
DEFAULT_END_OF_SEQUENCE_ID = 151_643
# SentencePiece's mark for a space.
WORD_BEGIN = "\u2581"


class TokenInTextError(InputError):
    """A tokenizer reads part of a text as a special token."""


class TextTokenizer:
    """Tokenizer of `transformers` that encodes every text as text; nothing is downloaded.

    Args:
        folder: local folder of the tokenizer.

    Raises:
        InputError: transformers is not installed, or the folder holds no tokenizer.
    """

    def __init__(self, folder: Path) -> None:
        # Texts are encoded one by one: other threads would have nothing to do.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        self._tokenizer: Any = load_tokenizer(folder)
        with tokenizer_errors(f"The tokenizer in {folder} cannot be used"):
            self._text_only: Any = _text_only(self._tokenizer)
            added = self._tokenizer.added_tokens_decoder
            if max(added, default=0) > LARGEST_ID or not isinstance(self._tokenizer.eos_token_id, int | None):
                raise ValueError("it has ids beyond all vocabularies")
        marks = [token_id for token_id, token in added.items() if token.special or self._text_only is None]
        # The unknown token stands for unknown characters, which are text.
        text_ids = {self._tokenizer.unk_token_id, *(token_id for token_id in marks if is_space(str(added[token_id])))}
        self._marks = frozenset(marks) - text_ids
        self.folder = folder

    def ids_of(self, text: str) -> np.ndarray:
        """Return the ids int32 [n] of a text; strings of special tokens in it are encoded as text.

        Raises:
            TokenInTextError: this tokenizer cannot encode such a string as text.
        """
        with tokenizer_errors(f"The tokenizer in {self.folder} cannot encode a text"):
            if self._text_only is not None:
                # The fast variant leaves out offsets in the text, and exists for batches only.
                found = self._text_only.encode_batch_fast([text], add_special_tokens=False)[0].ids
            else:
                encoded = self._tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False)
                found = encoded["input_ids"]
            ids = np.array(found, np.int32)
        self.refuse_marks(found)
        return ids

    def refuse_marks(self, ids: Sequence[int]) -> None:
        """Raise a `TokenInTextError` if one of the `ids` of a text is that of a special token."""
        if not self._marks.isdisjoint(ids):
            mark = next(token_id for token_id in ids if token_id in self._marks)
            raise TokenInTextError(f"the tokenizer reads a part of it as {self._tokenizer.decode(mark)}")

    @property
    def wrapped(self) -> Any:
        """The tokenizer of `transformers`."""
        return self._tokenizer

    def known_tokens(self) -> dict[str, int]:
        """Return the ids of all tokens by their strings, added tokens included."""
        return dict(self._tokenizer.get_vocab())

    @property
    def end_of_sequence(self) -> int | None:
        """Id of the token that ends a sequence; None if unknown."""
        found: int | None = self._tokenizer.eos_token_id
        return found

    @property
    def fingerprint(self) -> str:
        """Hash of everything that decides ids."""
        backend = getattr(self._tokenizer, "backend_tokenizer", None)
        text = json.dumps(self.known_tokens(), sort_keys=True) if backend is None else backend.to_str()
        return hashlib.sha256(f"{self.end_of_sequence} {text}".encode()).hexdigest()


def _text_only(tokenizer: Any) -> Any:
    """Return the inner tokenizer of the `tokenizers` library, made to ignore added tokens.

    `split_special_tokens` is not enough: audio tokens and marks such as `<tool_call>` are added, but not special.
    """
    from tokenizers import Tokenizer

    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    described = json.loads(backend.to_str())
    for token in described["added_tokens"]:
        # Long runs of spaces are text that models know as tokens.
        token["special"] = not is_space(token["content"])
    found = Tokenizer.from_str(json.dumps(described))
    found.encode_special_tokens = True
    found.no_truncation()
    found.no_padding()
    return found


def is_space(token: str) -> bool:
    """Return True for a token that stands for spaces, which are text."""
    return not token.strip().strip(WORD_BEGIN)


@dataclass(frozen=True)
class TokenIds:
    """Ids of tokens by their strings: the tokenizer's if it knows them, else the vocabulary's.

    Attributes:
        vocabulary: of the codes.
        known: ids of the tokenizer's tokens.
        end_of_sequence: id that ends a sequence; None if unknown.
    """

    vocabulary: Vocabulary
    known: dict[str, int]
    end_of_sequence: int | None

    @classmethod
    def of(
        cls, vocabulary: Vocabulary, tokenizer: TextTokenizer | None, end_of_sequence: str | int | None = None
    ) -> TokenIds:
        """Combine a vocabulary with a tokenizer.

        Args:
            vocabulary: of the codes.
            tokenizer: of text, if any.
            end_of_sequence: token or id that ends a sequence; by default the tokenizer's.

        Raises:
            InputError: tokens of the tokenizer overlap with the audio tokens, or the end of a sequence is not valid.
        """
        known = tokenizer.known_tokens() if tokenizer else {}
        _refuse_overlap(vocabulary, known)
        found: int | None
        if isinstance(end_of_sequence, int) or (isinstance(end_of_sequence, str) and end_of_sequence.isdecimal()):
            found = int(end_of_sequence)
        elif isinstance(end_of_sequence, str):
            if end_of_sequence not in known:
                raise InputError(f"The tokenizer has no token {end_of_sequence!r}; pass --eos with another or an id.")
            found = known[end_of_sequence]
        elif tokenizer is not None:
            found = tokenizer.end_of_sequence
        else:
            found = DEFAULT_END_OF_SEQUENCE_ID if vocabulary.offset == DEFAULT_OFFSET else None
        if found is not None and not 0 <= found <= LARGEST_ID:
            raise InputError(
                f"The id {found} cannot end a sequence: ids go from 0 to {LARGEST_ID}; pass --eos with another one."
            )
        first, last = vocabulary.offset, vocabulary.offset + vocabulary.n_codes - 1
        if found is not None and first <= found <= last:
            raise InputError(
                f"The id {found} cannot end a sequence: it is the id of a code; pass --eos with a token, or with an"
                f" id outside of {first} to {last}."
            )
        return cls(vocabulary, known, found)

    @property
    def special_tokens(self) -> dict[str, int]:
        """Ids of the special tokens that accompany codes."""
        return {name: self.of_token(name) for name in self.vocabulary.special_tokens}

    def of_token(self, name: str) -> int:
        """Return the id of a token, or of the end of a sequence for "eos".

        UniTTS's marks around audio stand for those of the layout.

        Raises:
            InputError: neither the tokenizer nor the vocabulary has the token.
        """
        if name == END_OF_SEQUENCE:
            if self.end_of_sequence is None:
                raise InputError("The token that ends a sequence is unknown; pass --eos with its id.")
            return self.end_of_sequence
        name = self._in_layout(name)
        if name in self.known:
            return self.known[name]
        if name in self.vocabulary.special_tokens:
            return self.vocabulary.id_of(name)
        raise InputError(f"The token {name!r} of the template is unknown; pass a --tokenizer that has it.")

    @property
    def padding_id(self) -> int | None:
        """Id at the empty places of a layout with a delay; None without one."""
        padding = self.vocabulary.layout.padding
        return None if padding is None else self.of_token(padding)

    def _in_layout(self, name: str) -> str:
        """Return the layout's own token for a mark of UniTTS around audio, and other tokens as they are."""
        layout = self.vocabulary.layout
        if name not in SPECIAL_TOKENS or name in layout.special_tokens:
            return name
        own = {
            BEGIN_AUDIO: layout.begin_audio,
            END_AUDIO: layout.end_audio,
            BEGIN_INNER_AUDIO: layout.begin_inner_audio or layout.begin_audio,
            END_INNER_AUDIO: layout.end_inner_audio or layout.end_audio,
        }
        if name in own and own[name] is None:
            raise InputError(
                f"The template needs {name}, but the layout {layout.name} has no such mark; name one in the layout, or"
                " give a template without it."
            )
        return own.get(name) or name


def _refuse_overlap(vocabulary: Vocabulary, known: dict[str, int]) -> None:
    """Refuse other tokens among the ids of audio tokens, and audio tokens at other ids."""
    first, layout = vocabulary.offset, vocabulary.layout
    # If the tokenizer knows all special tokens, the vocabulary's ids for them are not used.
    knows_special = known.keys() >= set(vocabulary.special_tokens)
    begin, end = (first, first + vocabulary.n_codes) if knows_special else (vocabulary.first, vocabulary.end)
    for token, token_id in sorted(known.items(), key=lambda found: found[1]):  # the same one in every run
        if begin <= token_id < end and token != vocabulary.token(token_id):
            other = preset_of_token(token)
            if other not in (None, layout.name):
                raise InputError(
                    f"The tokenizer has audio tokens of the layout {other}, such as {token} at {token_id}, not of the"
                    f" layout {layout.name}; pass --layout {other}."
                )
            raise InputError(
                f"The tokenizer has the token {token!r} at {token_id}, among the audio tokens from {begin} to"
                f" {end - 1}; pass --offset with the number of rows of the model's embedding."
            )
    own = [token_id for token, token_id in known.items() if layout.is_code_token(token)]
    if layout.kind == "characters" and not any(is_private_use(token) for token in known):
        own = []  # characters behind the private-use area are text, too
    foreign = [token for token in known if default_layout().is_code_token(token)]
    if foreign and layout != default_layout():
        raise InputError(
            f"The tokenizer has audio tokens of the layout unitts, such as {foreign[0]}, not of the layout"
            f" {layout.name}; pass --layout unitts, or a tokenizer without audio tokens."
        )
    if own and min(own) != first:
        raise InputError(
            f"The tokenizer has audio tokens from {min(own)} on, not from {first}; pass --offset {min(own)}."
        )
    # Tokenizers of models with fixed ids may have more tokens of the same form.
    spare = layout.first_id is not None and len(own) > vocabulary.n_codes
    if own and len(own) != vocabulary.n_codes and not spare:
        raise InputError(
            f"The tokenizer has audio tokens of another codec: {len(own)} for codes, but this codec has"
            f" {vocabulary.n_codes} codes; give the tokenizer that was extended for it, or one without audio tokens."
        )
