"""The listeners' page, and the policy that lets a browser run only its own script."""

from __future__ import annotations

import base64
import hashlib
import re
from importlib.resources import files

_INLINE = re.compile(r"<(script|style)>(.*?)</\1>", re.DOTALL)


def listeners_page(test_id: str) -> tuple[str, str]:
    """Return the page as HTML, and its content security policy; a browser remembers a listener's name by the test."""
    page = files("codectok.evaluation.listening").joinpath("page.html").read_text(encoding="utf-8")
    hashes = {"script": "", "style": ""}
    for tag, content in _INLINE.findall(page):
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        hashes[tag] += f" 'sha256-{digest}'"
    policy = (
        f"default-src 'none'; script-src{hashes['script']}; style-src{hashes['style']}; connect-src 'self';"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return page.replace('<meta name="test" content="">', f'<meta name="test" content="{test_id}">'), policy
