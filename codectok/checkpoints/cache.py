"""The folder of this user's cache."""

from __future__ import annotations

import os
from pathlib import Path

from codectok.errors import CheckpointError


def cache_folder() -> Path:
    """Return `$XDG_CACHE_HOME/codectok`, or `~/.cache/codectok`; it may not exist yet.

    Raises:
        CheckpointError: the user has no home folder.
    """
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if named.is_absolute():  # relative ones are to be ignored
        return named / "codectok"
    try:
        return Path.home() / ".cache" / "codectok"
    except RuntimeError:
        raise CheckpointError("There is no home folder for the cache; set XDG_CACHE_HOME to a folder.") from None
