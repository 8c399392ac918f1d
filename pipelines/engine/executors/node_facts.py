"""Facts about one machine of a cluster, found on that machine."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
from dataclasses import dataclass
from pathlib import Path

import codectok


@dataclass(frozen=True)
class NodeFacts:
    """What decides the output of a machine.

    Attributes:
        code: version of codectok, and a hash of its files.
        torch: version of torch.
        ffmpeg: True if there is an ffmpeg, which decides which files are rejected.
    """

    code: str
    torch: str
    ffmpeg: bool


@functools.cache
def code_version() -> str:
    """Return the version of codectok on this machine, and a hash of its files."""
    folder = Path(codectok.__file__).parent
    digest = hashlib.sha256()
    # Folders may be links in a copy of the repository.
    found = [Path(place, name) for place, _, names in os.walk(folder, followlinks=True) for name in names]
    for path in sorted(path for path in found if path.suffix in (".py", ".yaml")):
        digest.update(f"{path.relative_to(folder)}\n".encode())
        digest.update(path.read_bytes())
    return f"{codectok.__version__} ({digest.hexdigest()[:12]})"


def node_facts() -> NodeFacts:
    """Find the facts of this machine."""
    import torch

    from codectok.audio.ffmpeg.decoding import is_installed

    return NodeFacts(code_version(), f"{torch.__version__}, Python {platform.python_version()}", is_installed())


def difference(own: NodeFacts, other: NodeFacts) -> str | None:
    """Tell why a machine with the facts `other` may write other bytes than this machine; None if it does not."""
    if own.code != other.code:
        return f"it has codectok {other.code}, and this machine {own.code}"
    if own.torch != other.torch:
        return f"it has torch {other.torch}, and this machine {own.torch}; install the same"
    if own.ffmpeg != other.ffmpeg:
        has, lacks = ("it", "this machine") if other.ffmpeg else ("this machine", "it")
        return f"{has} has an ffmpeg and {lacks} has none, so that rejects would differ; install it on all or none"
    return None
