"""Checkpoints: codectok's format, and the import of DistilCodec checkpoints."""

from .distilcodec import import_distilcodec
from .native import CheckpointHeader, build_network, is_checkpoint, load_checkpoint, read_header, save_checkpoint

__all__ = [
    "CheckpointHeader",
    "build_network",
    "import_distilcodec",
    "is_checkpoint",
    "load_checkpoint",
    "read_header",
    "save_checkpoint",
]
