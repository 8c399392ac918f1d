"""Makes documents, token ids of a language model, from conversations and the rows of their audio."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from codectok.errors import InputError
from codectok.exports.sequences.documents import CodeSpan, Document
from codectok.exports.sequences.text_tokenizer import TextTokenizer, TokenIds
from codectok.tokens.row_index import FoundRow
from codectok.tokens.vocabulary import BEGIN_AUDIO, BEGIN_INNER_AUDIO, END_AUDIO, END_INNER_AUDIO

from .chat_tokenizer import ChatTokenizer
from .conversations import AudioPart, Conversation, ConversationError
from .rendering import Piece, TokenFinder
from .template import ConversationTemplate
from .unitts_dialogs import WRAPPED
from .unitts_template import UNITTS


class EncodedAudio(NamedTuple):
    """Ids of audio with the tokens around it, and its duration in seconds."""

    ids: np.ndarray
    seconds: float


class ChatBuilder:
    """Builds documents of conversations.

    Args:
        template: renders conversations.
        tokenizer: of the language model.
        tokens: ids of special tokens and codes.
        frame_rate: of the codec.

    Raises:
        InputError: the tokenizer cannot be used with the template, or a token is unknown.
    """

    def __init__(
        self, template: ConversationTemplate, tokenizer: TextTokenizer, tokens: TokenIds, frame_rate: float
    ) -> None:
        self._template, self._tokens, self._frame_rate = template, tokens, frame_rate
        names = list(template.names)
        if template.label == UNITTS:
            # UniTTS's further marks, as far as the tokenizer has them.
            known = {*tokens.known, *tokens.vocabulary.special_tokens}
            names += [name for pair in WRAPPED.values() for name in pair if name in known]
        self._tokenizer = ChatTokenizer(tokenizer, tokens, names)
        self._finder = TokenFinder(self._tokenizer.names)
        self._marks = {
            "outer": tuple(tokens.of_token(name) for name in (BEGIN_AUDIO, END_AUDIO)),
            "inner": tuple(tokens.of_token(name) for name in (BEGIN_INNER_AUDIO, END_INNER_AUDIO)),
        }
        self._padding = tokens.padding_id
        template.check(self._finder)

    def build(
        self, conversation: Conversation, rows: Mapping[str, FoundRow], name: str, dataset: str, source: str
    ) -> Document:
        """Build the document of a conversation.

        Args:
            conversation: to be rendered.
            rows: of all its references.
            name: id of the conversation.
            dataset, source: where it comes from.

        Raises:
            ConversationError: an audio is missing, or the template or tokenizer cannot be used for it.
        """
        pieces = self._template.render(conversation, self._finder)
        unknown = next(
            (piece.content for piece in pieces if piece.is_token and piece.content not in self._tokenizer.names), None
        )
        if unknown is not None:
            raise ConversationError(f"It needs the token {unknown}, which the tokenizer lacks.")
        audio = [self._audio(piece, rows) for piece in pieces if isinstance(piece.content, AudioPart)]
        encoded = self._tokenizer.encode(pieces)
        ids: list[np.ndarray] = []
        learned: list[np.ndarray] = []
        spans = []
        begin = length = 0
        for place, found in zip(encoded.audio, audio, strict=True):
            ids += [encoded.ids[begin:place], found.ids]
            learned += [encoded.learned[begin:place], np.full(len(found.ids), encoded.learned[place])]
            start = length + place - begin + 1
            spans.append(CodeSpan(start, start + len(found.ids) - 2, self._tokens.vocabulary.n_codebooks, 1, 1))
            length += place - begin + len(found.ids)
            begin = place + 1
        ids.append(encoded.ids[begin:])
        learned.append(encoded.learned[begin:])
        mask = np.concatenate(learned)
        mask[:1] = False  # nothing comes before it
        if not mask.any():
            raise ConversationError("Nothing in it is learned.")
        return Document(
            np.concatenate(ids).astype(np.int32),
            name,
            dataset,
            sum(found.seconds for found in audio),
            tuple(spans),
            clips=(name, *conversation.references),
            source=source,
            learned=mask,
        )

    def _audio(self, piece: Piece, rows: Mapping[str, FoundRow]) -> EncodedAudio:
        part = piece.content
        assert isinstance(part, AudioPart), "chosen by the caller"
        vocabulary = self._tokens.vocabulary
        if part.reference:
            found = rows[part.reference]
            if found.row is None:
                raise ConversationError(found.problem)
            codes, seconds = found.row.codes, found.row.duration
        else:
            try:
                codes = vocabulary.codes_of(np.array(part.ids))
            except InputError as error:
                raise ConversationError(f"It has audio that is not of this vocabulary: {error}") from None
            seconds = len(codes) / self._frame_rate
        begin, end = self._marks[part.marks]
        ids = vocabulary.ids_of(codes, self._padding)
        return EncodedAudio(np.concatenate([[begin], ids, [end]]).astype(np.int32), seconds)
