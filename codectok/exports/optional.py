"""Optional dependencies, imported on use."""

from __future__ import annotations

from types import ModuleType

from codectok.errors import InputError


def need_transformers() -> ModuleType:
    """Import `transformers`; raise `InputError` if it is not installed."""
    try:
        import transformers
    except ImportError:
        raise InputError('This needs transformers; install it with pip install "codectok[hf]".') from None
    return transformers
