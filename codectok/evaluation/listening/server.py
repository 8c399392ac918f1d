"""The application behind a listening test: one page, its stimuli, ratings, and the owner's results."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from codectok.config import StrictModel
from codectok.errors import InputError

from .access import is_key
from .guard import PLAIN_POLICY, RESULTS, Guard, plain_page
from .page import listeners_page
from .ratings import Id, Seconds
from .results import PARQUET_FILE, collect_results, write_results
from .sessions import ConflictError, Sessions
from .stored_test import ListeningTest, stimulus_path

LARGEST_BODY = 1 << 16
Body = TypeVar("Body", bound=StrictModel)


class SessionBody(StrictModel):
    """A listener starts or continues."""

    name: str


class RatingBody(StrictModel):
    """A listener rates a stimulus."""

    name: str
    page: Id
    stimulus: Id
    scale: Id
    value: Annotated[int, Field(strict=True)]
    listened: Seconds


class CompletionBody(StrictModel):
    """A listener leaves a page."""

    name: str
    page: Id
    listened: dict[Id, Seconds]


class ListeningServer:
    """Answers the requests of listeners and of the owner.

    Files are found by their ids in the test, never by a path from a request.

    Args:
        folder: of the test.
        test: the test.
        sessions: of its listeners.
        owner_key: opens the results.
        listeners_key: first part of the listeners' addresses; None on loopback.
        on_failure: receives a sentence if the disk fails.
    """

    def __init__(
        self,
        folder: Path,
        test: ListeningTest,
        sessions: Sessions,
        owner_key: str,
        listeners_key: str | None = None,
        on_failure: Callable[[str], None] = lambda message: None,
    ) -> None:
        self._folder, self._test, self._sessions = folder, test, sessions
        self._owner_key, self._on_failure = owner_key, on_failure
        self._page, self._policy = listeners_page(test.id)
        self._files = {name: stimulus_path(folder, name) for name in test.stimulus_ids}
        routes = [
            Route("/", self._show_page),
            Route("/audio/{stimulus}", self._send_audio),
            Route("/api/session", self._open, methods=["POST"]),
            Route("/api/rating", self._rate, methods=["POST"]),
            Route("/api/page", self._complete, methods=["POST"]),
            Route(f"/{RESULTS}/{{key}}", self._show_results),
            Route(f"/{RESULTS}/{{key}}/{PARQUET_FILE}", self._send_parquet),
        ]
        handlers: dict[Any, Any] = {
            InputError: self._refuse,
            OSError: self._fail,
            HTTPException: self._answer,
            ClientDisconnect: self._answer,
        }
        app = Starlette(routes=routes, exception_handlers=handlers)
        app.router.redirect_slashes = False
        self.app: ASGIApp = Guard(app, listeners_key)

    async def _show_page(self, request: Request) -> Response:
        return HTMLResponse(self._page, headers={"content-security-policy": self._policy, "cache-control": "no-store"})

    async def _send_audio(self, request: Request) -> Response:
        path = self._files.get(request.path_params["stimulus"])
        if path is None:
            raise HTTPException(404)
        # Not as a file: its time and the tag of its content would tell stimuli of one system from others.
        content = await run_in_threadpool(path.read_bytes)
        return Response(content, media_type="audio/wav", headers={"cache-control": "private, max-age=86400"})

    async def _open(self, request: Request) -> Response:
        body = await _body(request, SessionBody)
        return _json(await run_in_threadpool(self._sessions.open, body.name))

    async def _rate(self, request: Request) -> Response:
        body = await _body(request, RatingBody)
        await run_in_threadpool(
            self._sessions.rate, body.name, body.page, body.stimulus, body.scale, body.value, body.listened
        )
        return _json({"saved": True})

    async def _complete(self, request: Request) -> Response:
        body = await _body(request, CompletionBody)
        return _json(await run_in_threadpool(self._sessions.complete, body.name, body.page, body.listened))

    async def _show_results(self, request: Request) -> Response:
        self._check_owner(request)
        results = await run_in_threadpool(self._write_results)
        return HTMLResponse(
            results.page, headers={"content-security-policy": PLAIN_POLICY, "cache-control": "no-store"}
        )

    async def _send_parquet(self, request: Request) -> Response:
        self._check_owner(request)
        await run_in_threadpool(self._write_results)
        content = await run_in_threadpool((self._folder / PARQUET_FILE).read_bytes)
        headers = {"cache-control": "no-store", "content-disposition": f'attachment; filename="{PARQUET_FILE}"'}
        return Response(content, media_type="application/vnd.apache.parquet", headers=headers)

    def _write_results(self) -> Any:
        results = collect_results(self._test, self._sessions)
        write_results(self._folder, results)
        return results

    def _check_owner(self, request: Request) -> None:
        if not is_key(request.path_params["key"], self._owner_key):
            raise HTTPException(403)

    async def _refuse(self, request: Request, error: Exception) -> Response:
        return _json({"error": str(error)}, 409 if isinstance(error, ConflictError) else 400)

    async def _fail(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, OSError)
        self._on_failure(f"Reading or writing failed: {error.strerror or error} ({error.filename or self._folder}).")
        return _json({"error": "The server could not save this; please tell the person who invited you."}, 503)

    async def _answer(self, request: Request, error: Exception) -> Response:
        if not isinstance(error, HTTPException):
            return Response(status_code=400)
        if request.url.path.startswith("/api/"):
            return _json({"error": error.detail}, error.status_code)
        text = {
            403: "The results are open to the owner of the test only; the terminal shows the complete address.",
            404: "There is no such page.",
        }
        return plain_page(error.status_code, error.detail, text.get(error.status_code, error.detail))


async def _body(request: Request, model: type[Body]) -> Body:
    """Read and check a JSON body of at most `LARGEST_BODY` bytes.

    Raises:
        HTTPException: 413 if it is larger, 415 if it is not JSON by its type, which other sites cannot send.
        InputError: it has other fields.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise HTTPException(415, "Send JSON.")
    content = bytearray()
    async for block in request.stream():
        content += block
        if len(content) > LARGEST_BODY:
            raise HTTPException(413, f"Send at most {LARGEST_BODY:,} bytes.")
    try:
        return model.model_validate_json(bytes(content))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the body"
        raise InputError(f"The request cannot be used: {place}: {first['msg']}.") from None


def _json(content: object, status: int = 200) -> Response:
    # Escaped to ASCII: a name may hold any character.
    return Response(json.dumps(content), status, {"cache-control": "no-store"}, media_type="application/json")
