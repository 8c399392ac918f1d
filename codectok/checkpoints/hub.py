"""Finds a codec's folder on the local disk or on the Hugging Face Hub."""

from __future__ import annotations

import re
from pathlib import Path

from codectok.config import PRESETS
from codectok.errors import CheckpointError, first_line

from .native import CONFIG_FILE, MODEL_FILE

HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def resolve_codec_directory(name: str | Path) -> Path:
    """Return the local folder of a codec; a Hub name `organisation/name` that is not a local folder is downloaded.

    Raises:
        CheckpointError: there is no such codec, or it cannot be downloaded.
    """
    path = Path(name)
    if path.is_dir():
        return path
    if str(name) in PRESETS:
        raise CheckpointError(f"{name} is a preset without weights; train it first, or give a codec's folder.")
    # If the first part of the name is a local folder, assume a mistyped path instead of a Hub name.
    if path.exists() or not HUB_NAME.fullmatch(str(name)) or Path(str(name).split("/")[0]).exists():
        raise CheckpointError(f"There is no codec folder {name}.")
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    except ImportError:
        raise CheckpointError(
            f"There is no codec folder {name}; if it is a name on the Hugging Face Hub,"
            " install huggingface_hub first (pip install huggingface_hub)."
        ) from None
    try:
        return Path(snapshot_download(str(name), allow_patterns=[CONFIG_FILE, MODEL_FILE]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = first_line(error)
        raise CheckpointError(
            f"There is no codec folder {name}, and it cannot be downloaded from the Hugging Face Hub: {reason}"
        ) from None
