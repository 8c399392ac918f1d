"""Encodes rendered conversations: tokens of the template become ids, and strings like tokens in texts stay text."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from codectok.errors import InputError
from codectok.exports.sequences.text_tokenizer import TextTokenizer, TokenIds, TokenInTextError, is_space
from codectok.exports.tokenizer import tokenizer_errors

from .conversations import AudioPart, ConversationError
from .rendering import Piece, mark_of

AUDIO = 0  # number of the mark that stands for audio


@dataclass(frozen=True)
class Encoded:
    """Ids of a conversation.

    Attributes:
        ids: int32 [n]; at the places of `audio`, any id.
        learned: bool [n].
        audio: positions of audio among the ids, in order.
    """

    ids: np.ndarray
    learned: np.ndarray
    audio: tuple[int, ...]


class ChatTokenizer:
    """Encodes text and tokens together, so that texts merge with the text of the template around them.

    The inner tokenizer is a copy that knows each added token by a string of reserved characters instead of the token's
    own. Such strings are written in place of the template's tokens; all other text is encoded as text.

    Args:
        tokenizer: of the language model.
        tokens: ids of special tokens and codes.
        names: further tokens that a template may write.

    Raises:
        InputError: the tokenizer is not a fast one, or a token of `names` is unknown.
    """

    def __init__(self, tokenizer: TextTokenizer, tokens: TokenIds, names: Collection[str] = ()) -> None:
        self._tokenizer = tokenizer
        backend = getattr(tokenizer.wrapped, "backend_tokenizer", None)
        if backend is None:
            raise InputError(
                f"The tokenizer in {tokenizer.folder} has no tokenizer.json, which conversations need; save it with"
                " transformers as a fast tokenizer."
            )
        with tokenizer_errors(f"The tokenizer in {tokenizer.folder} cannot be used"):
            described = json.loads(backend.to_str())
            own = [token for token in described["added_tokens"] if not is_space(token["content"])]
            layout = tokens.vocabulary.layout
            ids = {token["content"]: int(token["id"]) for token in own if not layout.is_code_token(token["content"])}
            ids |= {name: tokens.of_token(name) for name in names}
            self._marks = {name: mark_of(number) for number, name in enumerate(ids, start=AUDIO + 1)}
            flags = {token["content"]: token for token in own}
            self._inner, self._ids = _disguised(described, self._marks, flags, ids)
            # With some normalizers, a token behind a text is text.
            self._marks = {name: mark for name, mark in self._marks.items() if self._is_found(mark)}
        self._is_token = np.zeros(len(self._ids), bool)
        for mark in (mark_of(AUDIO), *self._marks.values()):
            self._is_token[self._inner.token_to_id(mark)] = True
        self._audio_id = self._inner.token_to_id(mark_of(AUDIO))

    @property
    def names(self) -> Collection[str]:
        """Strings of all tokens that a template may write."""
        return self._marks.keys()

    def encode(self, pieces: Sequence[Piece]) -> Encoded:
        """Encode a rendered conversation.

        Raises:
            ConversationError: this tokenizer cannot encode a part of the text as text.
        """
        texts = [self._text_of(piece) for piece in pieces]
        lengths = [len(text) for text in texts]
        learned = np.repeat(np.array([piece.learned for piece in pieces], bool), lengths)
        with tokenizer_errors(f"The tokenizer in {self._tokenizer.folder} cannot encode a text"):
            encoding = self._inner.encode("".join(texts), add_special_tokens=False)
            raw = np.asarray(encoding.ids, np.int32)
            offsets = np.asarray(encoding.offsets, np.int64).reshape(-1, 2)
        try:
            self._tokenizer.refuse_marks(self._ids[raw[~self._is_token[raw]]].tolist())
        except TokenInTextError as error:
            raise ConversationError(f"It has a text that cannot be used: {error}.") from None
        # Of a token that begins in one piece and ends in another, the learned part counts, as in transformers.
        sums = np.concatenate([[0], np.cumsum(learned)])
        start, end = offsets[:, 0], np.maximum(offsets[:, 1], np.minimum(offsets[:, 0] + 1, len(learned)))
        places = np.flatnonzero(raw == self._audio_id)
        return Encoded(self._ids[raw], sums[end] > sums[start], tuple(int(place) for place in places))

    def _is_found(self, mark: str) -> bool:
        return self._inner.token_to_id(mark) in self._inner.encode(f".{mark}.", add_special_tokens=False).ids

    def _text_of(self, piece: Piece) -> str:
        if isinstance(piece.content, AudioPart):
            return mark_of(AUDIO)
        return self._marks[piece.content] if piece.is_token else piece.content


def _disguised(
    described: dict[str, Any], marks: dict[str, str], flags: dict[str, Any], ids: dict[str, int]
) -> tuple[Any, np.ndarray]:
    """Return a tokenizer whose added tokens are `marks`, and the real id of each of its ids."""
    from tokenizers import AddedToken, Tokenizer

    spaces = [token for token in described["added_tokens"] if is_space(token["content"])]
    inner: Any = Tokenizer.from_str(json.dumps({**described, "added_tokens": spaces, "post_processor": None}))
    inner.no_truncation()
    inner.no_padding()
    model_ids = set(inner.get_vocab(with_added_tokens=False).values())
    options = ("single_word", "lstrip", "rstrip", "normalized", "special")
    added = [AddedToken(mark_of(AUDIO), normalized=False, special=True)]
    for name, mark in marks.items():
        chosen = {option: flags[name][option] for option in options} if name in flags else {"special": True}
        added.append(AddedToken(mark, **{"normalized": False, **chosen}))
    inner.add_tokens(added)
    real = {inner.token_to_id(token["content"]): int(token["id"]) for token in spaces}
    real |= {inner.token_to_id(mark): ids[name] for name, mark in marks.items()}
    if model_ids & {inner.token_to_id(token.content) for token in added}:
        raise ValueError("its ids have gaps")
    lookup = np.arange(1 + max(*model_ids, *real, inner.token_to_id(mark_of(AUDIO))), dtype=np.int32)
    lookup[list(real)] = list(real.values())
    return inner, lookup
