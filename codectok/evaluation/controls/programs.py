"""Runs programs of other makers."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from codectok.errors import CodectokError

# Programs have this time, and as long as the audio lasts.
BASE_SECONDS = 60.0
LONGEST_MESSAGE = 200


def pipe(command: Sequence[str], data: bytes, seconds: float, package: str | None) -> bytes:
    """Run a program that reads standard input and writes standard output.

    Args:
        command: program and arguments.
        data: for standard input.
        seconds: duration of the audio, which limits the time.
        package: that holds the program, for the message.

    Returns:
        The bytes that it wrote.

    Raises:
        CodectokError: the program is missing, fails, writes nothing, or takes too long.
    """
    name, limit = command[0], BASE_SECONDS + seconds
    try:
        done = subprocess.run(command, input=data, capture_output=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        raise CodectokError(f"{name} did not end within {limit:.0f} s for {seconds:.0f} s of audio.") from None
    except OSError as error:
        raise CodectokError(f"{name} cannot be started ({error.strerror}); install the package {package}.") from None
    if done.returncode != 0 or not done.stdout:
        lines = done.stderr.decode(errors="replace").split("\n")
        message = next((line.strip() for line in reversed(lines) if line.strip()), "no message")[:LONGEST_MESSAGE]
        ending = f"signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
        raise CodectokError(f"{name} failed for {seconds:.1f} s of audio ({ending}): {message}.")
    return done.stdout
