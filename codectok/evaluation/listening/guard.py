"""Refuses requests before they reach the application: foreign hosts, missing keys, other origins."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import HTMLResponse, Response

from .access import is_key

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

RESULTS = "results"  # first part of the owner's addresses, which have a key of their own
HEADERS: Mapping[str, str] = {
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
PLAIN_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class Guard:
    """Middleware that answers requests which must not be served, and adds headers to all answers.

    Args:
        app: the application.
        key: first part of all paths but the owner's, removed before the application sees them; None on loopback, where
            the host must be a name of this machine instead, since any web page can give its own name this address.
    """

    def __init__(self, app: ASGIApp, key: str | None) -> None:
        self._app, self._key = app, key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        if scope["type"] != "http":
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                added = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", []), *added]}
            await send(message)

        refusal = self._refusal(scope)
        if refusal is not None:
            await refusal(scope, receive, send_with_headers)
            return
        await self._app({**scope, "path": self._path(scope["path"]), "root_path": ""}, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self._key is None and not _is_loopback(host):
            return plain_page(400, "Unknown host", "Open this test by the address that the terminal shows.")
        origin = headers.get("origin")
        if origin is not None and _host_of(origin) != host:
            return plain_page(403, "Another origin", "Only the page of this test may send ratings.")
        first = scope["path"].split("/")[1] if scope["path"].startswith("/") else ""
        if self._key is not None and first != RESULTS and not is_key(first, self._key):
            message = "The address of this test has a key; ask the person who invited you for the complete address."
            return plain_page(403, "The key is missing", message)
        return None

    def _path(self, path: str) -> str:
        first, _, rest = path[1:].partition("/")
        return path if self._key is None or first == RESULTS else f"/{rest}"


def _host_of(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


def plain_page(status: int, title: str, message: str) -> HTMLResponse:
    """Return a small page for a refusal."""
    style = "body { font: 16px/1.5 system-ui, sans-serif; margin: 4em auto; max-width: 32em; padding: 0 1em }"
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{style}</style></head><body><h1>{escape(title)}</h1><p>{escape(message)}</p></body></html>"
    )
    return HTMLResponse(page, status, {"content-security-policy": PLAIN_POLICY, "cache-control": "no-store"})


def _is_loopback(host: str) -> bool:
    """True for a Host header that names this machine itself, with any port, since it may be reached by a tunnel."""
    name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
    if name.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False
