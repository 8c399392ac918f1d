"""Checkpoints: the project's own format, and the import of DistilCodec's."""

from .distilcodec import import_distilcodec
from .native import CheckpointHeader, is_checkpoint, load_checkpoint, read_header, save_checkpoint

__all__ = [
    "CheckpointHeader",
    "import_distilcodec",
    "is_checkpoint",
    "load_checkpoint",
    "read_header",
    "save_checkpoint",
]
