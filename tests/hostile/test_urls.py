"""URLs that answer badly: each is the reject of its file, with a reason that can pass or not."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import resource
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import soundfile

from codectok.pipelines.engine.job import Job
from codectok.sources.stores import faults, files, web
from codectok.tokens.table import read_rows
from tests.helpers.audio import tone
from tests.helpers.jobs import rejects, run, shard_job, tokenize_job
from tests.helpers.tars import all_samples

pytest.importorskip("aiohttp")

RATE = 24_000
Answer = Callable[[BaseHTTPRequestHandler], None]


def sound(number: int = 0, container: str = "FLAC") -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, tone(2.5, RATE, 200 + 60 * number), RATE, format=container)
    return buffer.getvalue()


def send(handler: BaseHTTPRequestHandler, status: int, body: bytes = b"", **headers: Any) -> None:
    handler.send_response(status)
    for name, value in {"Content_Length": len(body), **headers}.items():
        handler.send_header(name.replace("_", "-"), str(value))
    handler.end_headers()
    with contextlib.suppress(ConnectionError):
        handler.wfile.write(body)


def of_bytes(data: bytes, **headers: str) -> Answer:
    return lambda handler: send(handler, 200, data, **headers)


def status(number: int, **headers: str) -> Answer:
    return lambda handler: send(handler, number, b"", **headers)


def ranged(data: bytes) -> Answer:
    """Answer with the bytes that are asked for."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        wanted = handler.headers.get("Range")
        if wanted is None:
            send(handler, 200, data)
            return
        first, last = (int(part) for part in wanted.removeprefix("bytes=").split("-"))
        part = data[first : last + 1]
        send(handler, 206, part, Content_Range=f"bytes {first}-{first + len(part) - 1}/{len(data)}")

    return answer


def endless(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    with contextlib.suppress(ConnectionError):
        while True:
            handler.wfile.write(bytes(1 << 20))


def endless_range(handler: BaseHTTPRequestHandler) -> None:
    """Answer a request for some bytes with the right header and a body without end."""
    handler.send_response(206)
    handler.send_header("Content-Range", "bytes 0-0/1000000000000")
    handler.end_headers()
    with contextlib.suppress(ConnectionError):
        while True:
            handler.wfile.write(bytes(1 << 20))


def dripping(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    with contextlib.suppress(ConnectionError):
        while True:
            handler.wfile.write(b"x")
            time.sleep(0.05)


def closed(handler: BaseHTTPRequestHandler) -> None:
    handler.close_connection = True


def cut_off(handler: BaseHTTPRequestHandler) -> None:
    send(handler, 200, sound()[:1000], Content_Length=100_000)


def garbage(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"\0\1 this is not HTTP \r\n" * 99)


class Web:
    """A server on loopback whose answers are functions by path; it counts the requests."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.requests: dict[str, int] = {}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.requests[self.path] = outer.requests.get(self.path, 0) + 1
                outer.answers.get(self.path, status(404))(self)

            do_HEAD = do_GET  # noqa: N815

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    monkeypatch.setattr(faults, "WAITS", (0.01, 0.01))
    monkeypatch.setattr(web, "READ_SECONDS", 1.0)
    monkeypatch.setattr(web, "PATIENCE_SECONDS", 0.5)
    found = Web()
    found.answers["/good.flac"] = of_bytes(sound(1))
    yield found
    found.server.shutdown()
    found.server.server_close()


@pytest.fixture(params=["shard", pytest.param("tokenize", marks=pytest.mark.slow)])
def job(request: pytest.FixtureRequest, codec_folder: Path) -> Job:
    return shard_job() if request.param == "shard" else tokenize_job(codec_folder)


def kept(job: Job, output: Path) -> list[str]:
    if job.verb == "shard":
        return sorted(sample.source for sample, _ in all_samples(output))
    return sorted(row.source for row in read_rows(output))


def manifest(tmp_path: Path, *urls: str) -> Path:
    path = tmp_path / "m.jsonl"
    path.write_text("".join(json.dumps({"path": url}) + "\n" for url in urls))
    return path


def reject_of(job: Job, url: str, server: Web, tmp_path: Path) -> dict[str, Any]:
    """Run a job over a good URL and `url`, and return the reject of `url`."""
    good = f"{server.url}/good.flac"
    run(job, manifest(tmp_path, url, good), tmp_path / "out")
    assert kept(job, tmp_path / "out") == [good]
    (row,) = rejects(tmp_path / "out")
    assert str(row["source"]).startswith(url[:50])
    return row


@pytest.mark.parametrize("number", [400, 401, 403, 404, 410, 416, 451])
def test_refused_url_is_unreadable_at_once(job: Job, number: int, server: Web, tmp_path: Path) -> None:
    server.answers["/bad.flac"] = status(number)
    row = reject_of(job, f"{server.url}/bad.flac", server, tmp_path)
    assert row["reason"] == "unreadable" and server.requests["/bad.flac"] == 1


@pytest.mark.parametrize("number", [408, 429, 500, 502, 503, 504])
def test_url_with_an_error_that_may_pass_is_tried_again(job: Job, number: int, server: Web, tmp_path: Path) -> None:
    server.answers["/bad.flac"] = status(number)
    row = reject_of(job, f"{server.url}/bad.flac", server, tmp_path)
    assert row["reason"] == "unreachable" and server.requests["/bad.flac"] == 3
    assert str(number) in str(row["message"])


@pytest.mark.parametrize("answer", [closed, cut_off, garbage, dripping], ids=lambda answer: answer.__name__)
def test_broken_answer_is_unreachable_or_unreadable(answer: Answer, server: Web, tmp_path: Path) -> None:
    server.answers["/bad.flac"] = answer
    row = reject_of(shard_job(), f"{server.url}/bad.flac", server, tmp_path)
    assert row["reason"] in ("unreachable", "unreadable"), row


def test_url_that_recovers_is_kept(server: Web, tmp_path: Path) -> None:
    answers = iter([status(503), closed, of_bytes(sound())])
    server.answers["/a.flac"] = lambda handler: next(answers)(handler)
    run(shard_job(), manifest(tmp_path, f"{server.url}/a.flac"), tmp_path / "out")
    assert not rejects(tmp_path / "out") and server.requests["/a.flac"] == 3


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "http://[", "//", "javascript:1", ""])
def test_redirect_elsewhere_is_rejected(target: str, server: Web, tmp_path: Path) -> None:
    server.answers["/bad.flac"] = status(302, Location=target)
    assert reject_of(shard_job(), f"{server.url}/bad.flac", server, tmp_path)["reason"] in ("unreadable", "unreachable")


def test_redirect_in_a_circle_is_rejected(server: Web, tmp_path: Path) -> None:
    server.answers["/bad.flac"] = status(302, Location="/bad.flac")
    assert reject_of(shard_job(), f"{server.url}/bad.flac", server, tmp_path)["reason"] == "unreadable"


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://no-such-host.invalid/a.flac", "unreachable"),
        ("http://127.0.0.1:1/a.flac", "unreachable"),
        ("http://127.0.0.1:99999/a.flac", "unreadable"),
        ("http:///a.flac", "unreadable"),
        ("http://[::1/a.flac", "unreadable"),
        ("http://" + "a" * 300 + ".invalid/a.flac", None),
        ("nosuchscheme://host/a.flac", "unreadable"),
        ("memory://nothing/here.flac", "unreadable"),
    ],
)
def test_url_that_leads_nowhere_is_rejected(
    job: Job, url: str, reason: str | None, server: Web, tmp_path: Path
) -> None:
    row = reject_of(job, url, server, tmp_path)
    assert row["reason"] in (("unreachable", "unreadable") if reason is None else (reason,)), row


@pytest.mark.parametrize("answer", [endless, endless_range], ids=lambda answer: answer.__name__)
@pytest.mark.parametrize("name", ["bad.flac", "bad.tar", "bad.parquet"])
def test_endless_body_is_bounded(
    answer: Answer, name: str, server: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MAX_COPY_BYTES", 1 << 26)
    server.answers[f"/{name}"] = answer
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    row = reject_of(shard_job(max_file_bytes=1 << 26), f"{server.url}/{name}", server, tmp_path)
    assert row["reason"] in ("too_large", "unreadable", "unreachable")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB


def test_stated_length_beyond_the_limit_is_not_read(server: Web, tmp_path: Path) -> None:
    server.answers["/bad.flac"] = lambda handler: send(handler, 200, b"x", Content_Length=1 << 60)
    row = reject_of(shard_job(), f"{server.url}/bad.flac", server, tmp_path)
    assert row["reason"] == "too_large" and "--max-file-bytes" in str(row["message"]), row


@pytest.mark.parametrize("data", [gzip.compress(bytes(1 << 28)), b"\x1f\x8b garbage"], ids=["bomb", "garbage"])
def test_packed_answer_is_unpacked_up_to_the_limit(data: bytes, server: Web, tmp_path: Path) -> None:
    server.answers["/bad.flac"] = of_bytes(data, Content_Encoding="gzip")
    row = reject_of(shard_job(max_file_bytes=1 << 24), f"{server.url}/bad.flac", server, tmp_path)
    assert row["reason"] in ("too_large", "unreadable", "unreachable")


def test_packed_sound_is_read(server: Web, tmp_path: Path) -> None:
    server.answers["/a.flac"] = of_bytes(gzip.compress(sound()), Content_Encoding="gzip")
    run(shard_job(), manifest(tmp_path, f"{server.url}/a.flac"), tmp_path / "out")
    assert len(kept(shard_job(), tmp_path / "out")) == 1


def tar_of(count: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for number in range(count):
            info, data = tarfile.TarInfo(f"{number}.wav"), sound(number, "WAV")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@pytest.mark.parametrize("make", [of_bytes, ranged], ids=["whole", "ranges"])
def test_tar_of_a_server_is_read_with_and_without_ranges(
    make: Callable[[bytes], Answer], server: Web, tmp_path: Path
) -> None:
    server.answers["/t.tar"] = make(tar_of(4))
    run(shard_job(), manifest(tmp_path, f"{server.url}/t.tar"), tmp_path / "out")
    assert len(kept(shard_job(), tmp_path / "out")) == 4 and not rejects(tmp_path / "out")


def test_server_that_fails_within_a_tar_costs_the_rest_only(
    server: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "BLOCK", 1 << 16)
    data = tar_of(8)
    whole, broken = ranged(data), status(503)

    def answer(handler: BaseHTTPRequestHandler) -> None:
        start = int((handler.headers.get("Range") or "bytes=0-").removeprefix("bytes=").split("-")[0])
        (broken if start > len(data) // 2 else whole)(handler)

    server.answers["/t.tar"] = answer
    run(shard_job(), manifest(tmp_path, f"{server.url}/t.tar", f"{server.url}/good.flac"), tmp_path / "out")
    assert 3 <= len(kept(shard_job(), tmp_path / "out")) <= 5
    assert {row["reason"] for row in rejects(tmp_path / "out")} == {"unreachable"}
