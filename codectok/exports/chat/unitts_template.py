"""Turns of UniTTS's SFT data."""

from __future__ import annotations

from .conversations import ASSISTANT, Conversation, ConversationError, TextPart, TokenPart
from .rendering import Piece, TokenFinder
from .template import ConversationTemplate

UNITTS = "unitts"


class UnittsTemplate(ConversationTemplate):
    """Turns of UniTTS's SFT data; as there, all but the first token of an assistant's turn is learned."""

    begin, ends = "<|im_start|>", ("<|im_end|>", "<|endoftext|>")
    names = (begin, *ends)
    label = UNITTS

    def render(self, conversation: Conversation, finder: TokenFinder) -> list[Piece]:
        """Render the turns one behind the other."""
        pieces: list[Piece] = []
        if conversation.tools:
            raise ConversationError("The template unitts has no place for 'tools'; describe them in a text.")
        for turn in conversation.turns:
            if turn.role not in ("system", "user", ASSISTANT):
                raise ConversationError(f"The template unitts has no role {turn.role}.")
            unknown = next((key for key in turn.fields if key in ("tool_calls", "reasoning_content")), None)
            if unknown is not None:
                raise ConversationError(f"The template unitts has no place for {unknown!r}; write a 'dialog'.")
            learned = turn.learned
            pieces.append(Piece(self.begin, False, is_token=True))
            pieces.append(Piece(f"{turn.name or turn.role}\n", learned))
            for part in turn.parts:
                if isinstance(part, TokenPart):
                    pieces.append(Piece(part.token, learned, is_token=True))
                else:
                    pieces.append(Piece(part.text if isinstance(part, TextPart) else turn.placed(part), learned))
            pieces += [Piece(token, learned, is_token=True) for token in self.ends]
        return pieces
