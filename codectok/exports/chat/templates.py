"""Loads templates of conversations by their names."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

from codectok.errors import InputError

from .jinja_template import JinjaTemplate
from .template import ConversationTemplate
from .unitts_template import UNITTS, UnittsTemplate

OF_TOKENIZER = "tokenizer"
MAX_TEMPLATE_BYTES = 1 << 20


def load_conversation_template(name: str, tokenizer: Any, folder: Path, today: date | None) -> ConversationTemplate:
    """Load a template: "tokenizer", "unitts", or a file in the language of Jinja.

    Raises:
        InputError: there is no such template, or it cannot be used.
    """
    if name == UNITTS:
        return UnittsTemplate()
    if name == OF_TOKENIZER:
        return JinjaTemplate(tokenizer, folder, today=today)
    path = Path(name)
    if not path.is_file():
        raise InputError(f"There is no template {name}; choose {OF_TOKENIZER}, {UNITTS} or a Jinja file.")
    data = path.read_bytes()[: MAX_TEMPLATE_BYTES + 1]
    try:
        if len(data) > MAX_TEMPLATE_BYTES:
            raise ValueError
        return JinjaTemplate(tokenizer, path, data.decode(), today)
    except ValueError:
        raise InputError(f"The template {name} is not UTF-8 text of at most {MAX_TEMPLATE_BYTES:,} bytes.") from None
