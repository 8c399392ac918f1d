"""codectok: audio corpora into token tables for language models, and the codec that makes the tokens."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from . import phases as _phases  # noqa: F401 - a command begins when it is imported
from .errors import AudioError, CheckpointError, CodectokError, ConfigError, InputError, VerificationError

if TYPE_CHECKING:
    from codectok.audio.files import read_audio, write_audio
    from codectok.audio.sound import SoundOptions
    from codectok.codecs.base import AudioCodec
    from codectok.codecs.fingerprints import hash_codec
    from codectok.codecs.whole_clip_codec import WholeClipCodec
    from codectok.sources.clip import Clip
    from codectok.sources.rejects import Reject
    from codectok.tokens.dataset import TokenDataset
    from codectok.tokens.layouts.loading import load_layout
    from codectok.tokens.layouts.reading import read_ids, read_text, text_of
    from codectok.tokens.reader import TokenTable, open_table
    from codectok.tokens.vocabulary import Vocabulary

    from .codec import Codec
    from .loading import load_codec

__version__ = "0.1.0"
__all__ = [
    "AudioCodec",
    "AudioError",
    "CheckpointError",
    "Clip",
    "Codec",
    "CodectokError",
    "ConfigError",
    "InputError",
    "Reject",
    "SoundOptions",
    "TokenDataset",
    "TokenTable",
    "VerificationError",
    "Vocabulary",
    "WholeClipCodec",
    "__version__",
    "hash_codec",
    "load_codec",
    "load_layout",
    "open_table",
    "read_audio",
    "read_ids",
    "read_text",
    "text_of",
    "write_audio",
]

# Imported on first use: they bring torch and pyarrow, and `codectok --help` must stay fast.
_LAZY = {
    "AudioCodec": "codectok.codecs.base",
    "Clip": "codectok.sources.clip",
    "Codec": "codectok.codec",
    "Reject": "codectok.sources.rejects",
    "SoundOptions": "codectok.audio.sound",
    "TokenDataset": "codectok.tokens.dataset",
    "TokenTable": "codectok.tokens.reader",
    "Vocabulary": "codectok.tokens.vocabulary",
    "WholeClipCodec": "codectok.codecs.whole_clip_codec",
    "hash_codec": "codectok.codecs.fingerprints",
    "load_codec": "codectok.loading",
    "load_layout": "codectok.tokens.layouts.loading",
    "open_table": "codectok.tokens.reader",
    "read_audio": "codectok.audio.files",
    "read_ids": "codectok.tokens.layouts.reading",
    "read_text": "codectok.tokens.layouts.reading",
    "text_of": "codectok.tokens.layouts.reading",
    "write_audio": "codectok.audio.files",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'codectok' has no attribute {name!r}")
