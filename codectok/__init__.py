"""codectok: audio corpora into token tables for language models, and the codec that does it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import AudioError, CheckpointError, CodectokError, ConfigError, InputError

if TYPE_CHECKING:
    from .codec import Codec

__version__ = "0.1.0"
__all__ = ["AudioError", "CheckpointError", "Codec", "CodectokError", "ConfigError", "InputError", "__version__"]


def __getattr__(name: str) -> Any:
    # Codec brings torch; `codectok --help` and `import codectok` stay fast without it.
    if name == "Codec":
        from .codec import Codec

        return Codec
    raise AttributeError(f"module 'codectok' has no attribute {name!r}")
