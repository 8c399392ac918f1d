"""Names of files and text of the terminal as UTF-8, whatever the locale says."""

from __future__ import annotations

import io
import os
import sys


def use_utf8() -> None:
    """Make file names UTF-8 in this process and its children; bytes that are not UTF-8 stay as they are.

    Python decides that when it starts, so that under another locale it starts again. Output never fails: characters
    that the terminal cannot show become escapes.
    """
    if sys.getfilesystemencoding().lower() != "utf-8":
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
