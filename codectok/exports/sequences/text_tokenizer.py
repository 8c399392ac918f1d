"""The text tokenizer of a language model, and the ids of special tokens."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from codectok.errors import InputError
from codectok.exports.tokenizer import load_tokenizer
from codectok.tokens.vocabulary import DEFAULT_OFFSET, LARGEST_ID, SPECIAL_TOKENS, Vocabulary, is_code_token

from .templates import END_OF_SEQUENCE

# `<|endoftext|>` of Qwen2.5, to which the default offset belongs.
DEFAULT_END_OF_SEQUENCE_ID = 151_643
# What SentencePiece writes for a space.
WORD_BEGIN = "\u2581"


class TokenInTextError(InputError):
    """A tokenizer takes a part of a text for a token that is no text."""


class TextTokenizer:
    """A tokenizer folder as `transformers` reads it; nothing is ever downloaded.

    Raises:
        InputError: transformers is missing, or the folder holds no tokenizer.
    """

    def __init__(self, folder: Path) -> None:
        self._tokenizer: Any = load_tokenizer(folder)
        self._text_only: Any = _text_only(self._tokenizer)
        added = self._tokenizer.added_tokens_decoder
        marks = [token_id for token_id, token in added.items() if token.special or self._text_only is None]
        self._is_mark = np.zeros(1 + max(added, default=0), bool)
        self._is_mark[[token_id for token_id in marks if not _is_space(str(added[token_id]))]] = True
        unknown = self._tokenizer.unk_token_id
        if unknown is not None and unknown < len(self._is_mark):
            self._is_mark[unknown] = False  # for characters that it does not know
        self.folder = folder

    def ids_of(self, text: str) -> np.ndarray:
        """Ids int32 of a text; what looks like another token in it is text as well.

        Raises:
            TokenInTextError: this tokenizer cannot take it for text.
        """
        if self._text_only is not None:
            found = self._text_only.encode(text, add_special_tokens=False).ids
        else:
            encoded = self._tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False)
            found = encoded["input_ids"]
        ids = np.asarray(found, np.int32)
        marks = ids[ids < len(self._is_mark)]
        marks = marks[self._is_mark[marks]]
        if len(marks):
            raise TokenInTextError(f"the tokenizer takes a part of it for {self._tokenizer.decode(int(marks[0]))}")
        return ids

    def known_tokens(self) -> dict[str, int]:
        """Ids of all its tokens, added ones included."""
        return self._tokenizer.get_vocab()

    @property
    def end_of_sequence(self) -> int | None:
        """The id of its token for this, if it has one."""
        return self._tokenizer.eos_token_id

    @property
    def fingerprint(self) -> str:
        """Changes with everything that decides ids."""
        backend = getattr(self._tokenizer, "backend_tokenizer", None)
        text = json.dumps(self.known_tokens(), sort_keys=True) if backend is None else backend.to_str()
        return hashlib.sha256(f"{self.end_of_sequence} {text}".encode()).hexdigest()


def _text_only(tokenizer: Any) -> Any:
    """The tokenizer of the `tokenizers` library within `tokenizer`, blind to tokens that were added to its words.

    `split_special_tokens` is not enough: audio tokens and marks such as `<tool_call>` are none of the special ones.
    """
    from tokenizers import Tokenizer

    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    described = json.loads(backend.to_str())
    for token in described["added_tokens"]:
        # Long runs of spaces are text, and models know them as tokens.
        token["special"] = not _is_space(token["content"])
    found = Tokenizer.from_str(json.dumps(described))
    found.encode_special_tokens = True
    found.no_truncation()
    found.no_padding()
    return found


def _is_space(token: str) -> bool:
    return not token.strip().strip(WORD_BEGIN)


@dataclass(frozen=True)
class TokenIds:
    """Ids of tokens by their strings: from the tokenizer where it knows them, else from the vocabulary.

    `end_of_sequence` is a string or an id; by default the tokenizer's own.
    """

    vocabulary: Vocabulary
    known: dict[str, int]
    end_of_sequence: int | None

    @classmethod
    def of(
        cls, vocabulary: Vocabulary, tokenizer: TextTokenizer | None, end_of_sequence: str | int | None = None
    ) -> TokenIds:
        """Ids for a vocabulary beside the tokens of a tokenizer, which must not lie in its range.

        Raises:
            InputError: they do, or there is no such token to end a sequence.
        """
        known = tokenizer.known_tokens() if tokenizer else {}
        _refuse_overlap(vocabulary, known)
        found: int | None
        if isinstance(end_of_sequence, int) or (isinstance(end_of_sequence, str) and end_of_sequence.isdecimal()):
            found = int(end_of_sequence)
        elif isinstance(end_of_sequence, str):
            if end_of_sequence not in known:
                raise InputError(f"The tokenizer knows no token {end_of_sequence!r}; give another one or its id.")
            found = known[end_of_sequence]
        elif tokenizer is not None:
            found = tokenizer.end_of_sequence
        else:
            found = DEFAULT_END_OF_SEQUENCE_ID if vocabulary.offset == DEFAULT_OFFSET else None
        if found is not None and not 0 <= found <= LARGEST_ID:
            raise InputError(f"The id {found} that ends a sequence is too large; ids are at most {LARGEST_ID}.")
        first, last = vocabulary.offset, vocabulary.offset + vocabulary.n_codes - 1
        if found is not None and first <= found <= last:
            raise InputError(
                f"The id {found} cannot end a sequence, since it is that of a code; pass --eos with a token, or with an"
                f" id outside of {first} to {last}."
            )
        return cls(vocabulary, known, found)

    @property
    def special_tokens(self) -> dict[str, int]:
        """Ids of all special tokens that codes need beside them."""
        return {name: self.of_token(name) for name in SPECIAL_TOKENS}

    def of_token(self, name: str) -> int:
        """The id of a token, "eos" for the end of a sequence; `InputError` if nobody knows it."""
        if name == END_OF_SEQUENCE:
            if self.end_of_sequence is None:
                raise InputError("It is not known which token ends a sequence; pass --eos with its id.")
            return self.end_of_sequence
        if name in self.known:
            return self.known[name]
        if name in SPECIAL_TOKENS:
            return self.vocabulary.id_of(name)
        raise InputError(f"The token {name!r} of the template is in no vocabulary; give a tokenizer that knows it.")


def _refuse_overlap(vocabulary: Vocabulary, known: dict[str, int]) -> None:
    """Refuse tokens of the tokenizer where audio tokens are, and audio tokens that it has elsewhere."""
    first = vocabulary.offset
    # Where it knows the special tokens, their places here are not used.
    end = first + vocabulary.n_codes if known.keys() >= set(SPECIAL_TOKENS) else vocabulary.end
    for token, token_id in known.items():
        if first <= token_id < end and token != vocabulary.token(token_id):
            raise InputError(
                f"The tokenizer has the token {token!r} at {token_id}, among the audio tokens from {first} to"
                f" {end - 1}; pass --offset with the rows of the model's embedding."
            )
    own = [token_id for token, token_id in known.items() if is_code_token(token)]
    if own and min(own) != first:
        raise InputError(
            f"The tokenizer has audio tokens from {min(own)} on, not from {first}; pass --offset {min(own)}."
        )
    if own and len(own) != vocabulary.n_codes:
        raise InputError(
            f"The tokenizer has audio tokens of another codec: {len(own)} for codes, but this codec has"
            f" {vocabulary.n_codes} codes; give the tokenizer that was extended for it, or one without audio tokens."
        )
