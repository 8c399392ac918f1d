"""Token that a Ray cluster may ask for: where this machine has one."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

MODE, TOKEN, TOKEN_PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
DEFAULT_PATH = "~/.ray/auth_token"


def token_place() -> str | None:
    """Where Ray finds a token, in its order: the name of a variable or a file; None if there is none."""
    if os.environ.get(TOKEN, "").strip():
        return TOKEN
    if os.environ.get(TOKEN_PATH):
        return f"{TOKEN_PATH} ({os.environ[TOKEN_PATH]})"
    return DEFAULT_PATH if Path(DEFAULT_PATH).expanduser().is_file() else None


def use_token() -> bool:
    """Let Ray send the token of this machine, unless there is none or `RAY_AUTH_MODE` decides it; True if it will now.

    Only a cluster that asks for a token can be joined with one.
    """
    if token_place() is None or MODE in os.environ:
        return False
    os.environ[MODE] = "token"
    if "ray" in sys.modules:
        raylet: Any = sys.modules["ray._raylet"]
        raylet.Config.initialize("")  # Ray has read the mode when it was imported
    return True


def token_problem() -> str:
    """Tell what is wrong with the token of this machine after a cluster has refused it."""
    place = token_place()
    if place is None:
        return f"it asks for a token; set {TOKEN} to the token of the cluster, or store it in {DEFAULT_PATH}"
    path = os.environ.get(TOKEN_PATH)
    if place.startswith(TOKEN_PATH) and path and not Path(path).is_file():
        return f"it asks for a token, but the file {path} of {TOKEN_PATH} does not exist"
    if os.environ.get(MODE) != "token":
        return f"it asks for a token, but {MODE} is {os.environ.get(MODE)!r}; set it to token"
    return f"it does not accept the token in {place}; put the token of the cluster there"
