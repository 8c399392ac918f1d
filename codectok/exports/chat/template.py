"""The interface of templates that render conversations."""

from __future__ import annotations

from abc import ABC, abstractmethod

from .conversations import Conversation
from .rendering import Piece, TokenFinder


class ConversationTemplate(ABC):
    """Renders conversations.

    Attributes:
        names: tokens that it writes itself, in addition to those of the tokenizer.
        label: name and hash, for the plan of a job.
    """

    names: tuple[str, ...] = ()
    label: str

    @abstractmethod
    def render(self, conversation: Conversation, finder: TokenFinder) -> list[Piece]:
        """Render a conversation; `finder` knows the tokens of the tokenizer.

        Raises:
            ConversationError: the template does not accept it.
        """

    def check(self, finder: TokenFinder) -> None:
        """Raise an `InputError` if no conversation can be rendered."""
