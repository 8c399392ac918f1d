"""Keys in the addresses of a test: one for listeners from other machines, one for the owner's results."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from codectok.config import StrictModel, load_mapping, parse
from codectok.errors import ConfigError

KEYS_FILE = "access.json"
KEY_BYTES = 24
_SHORTEST = 16


class AccessKeys(StrictModel):
    """Random keys of a test.

    Attributes:
        listeners: needed for every address if the server is open to other machines.
        owner: needed for the results.
    """

    listeners: str
    owner: str


def access_keys(folder: Path) -> AccessKeys:
    """Return the keys of a test, which stay the same so that addresses survive a restart of the server.

    They are made on first use, in a file that only its owner can read.

    Raises:
        ConfigError: the file is damaged, or its keys are too short.
    """
    path = folder / KEYS_FILE
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        keys = parse(AccessKeys, load_mapping(path), str(path))
        if min(len(keys.listeners), len(keys.owner)) < _SHORTEST or keys.listeners == keys.owner:
            raise ConfigError(f"{path} must hold two different keys of {_SHORTEST} characters; remove it.") from None
        return keys
    keys = AccessKeys(listeners=secrets.token_urlsafe(KEY_BYTES), owner=secrets.token_urlsafe(KEY_BYTES))
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(keys.model_dump_json(indent=2) + "\n")
        file.flush()
        os.fsync(file.fileno())
    return keys


def is_key(given: str, key: str) -> bool:
    """Compare a key from an address in constant time."""
    return secrets.compare_digest(given.encode("utf-8", "replace"), key.encode())
