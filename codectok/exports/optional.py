"""What only some exports need, imported when they do."""

from __future__ import annotations

from types import ModuleType

from codectok.errors import InputError


def need_transformers() -> ModuleType:
    """The module `transformers`; `InputError` where it is not installed."""
    try:
        import transformers
    except ImportError:
        raise InputError('This needs transformers; install it with pip install "codectok[hf]".') from None
    return transformers
