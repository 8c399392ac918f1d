"""Facts about one machine of a cluster, found on that machine."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import codectok

LIBRARIES = ("numpy", "pyarrow", "soxr")


@dataclass(frozen=True)
class NodeFacts:
    """What decides the output of a machine.

    Attributes:
        code: version of codectok, and a hash of its files.
        torch: versions of torch and Python.
        libraries: versions of the libraries that decode, resample and write.
        ffmpeg: version of ffmpeg, which decides which files are rejected; None if there is none.
    """

    code: str
    torch: str
    libraries: str
    ffmpeg: str | None


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
    import soundfile
    import torch

    from codectok.audio.ffmpeg.decoding import installed_version

    libraries = [f"{name} {version(name)}" for name in LIBRARIES]
    return NodeFacts(
        code_version(),
        f"{torch.__version__}, Python {platform.python_version()}",
        ", ".join([*libraries, f"libsndfile {soundfile.__libsndfile_version__}"]),
        installed_version(),
    )


def difference(own: NodeFacts, other: NodeFacts) -> str | None:
    """Tell why a machine with the facts `other` may write other bytes than this machine; None if it does not."""
    if own.code != other.code:
        return f"it has codectok {other.code}, and this machine {own.code}"
    if own.torch != other.torch:
        return f"it has torch {other.torch}, and this machine {own.torch}; install the same"
    if own.libraries != other.libraries:
        return f"it has {other.libraries}, and this machine {own.libraries}; install the same"
    if own.ffmpeg and other.ffmpeg and own.ffmpeg != other.ffmpeg:
        return f"it has ffmpeg {other.ffmpeg}, and this machine {own.ffmpeg}; install the same"
    if own.ffmpeg != other.ffmpeg:
        has, lacks = ("it", "this machine") if other.ffmpeg else ("this machine", "it")
        return f"{has} has an ffmpeg and {lacks} has none, so that rejects would differ; install it on all or none"
    return None
