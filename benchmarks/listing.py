"""Measures time and memory to list and plan up to a million files of an object store.

Usage: python benchmarks/listing.py [--files 100000 1000000] [--save]

A server on this machine answers requests for listings with pages of 1,000 keys that it generates, so that no store has
to hold them. Each measurement is a process: its whole memory counts, with the libraries.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

BUCKET, FOLDER = "bucket", "corpus"
FILES_IN_FOLDER, FILE_BYTES = 1000, 1000
UNIT_SECONDS = 36_000.0
WAYS = {
    "imports alone": "the process without a listing",
    "fsspec find": "all entries in a dict of dicts, as clients of stores list",
    "list_sources": "columns of sources",
    "run_job": "plan stored on a disk, no unit made",
}


class ListingServer(BaseHTTPRequestHandler):
    """Answers ListObjectsV2 for a bucket with `files` keys in folders of 1,000."""

    protocol_version = "HTTP/1.1"
    files = 0
    page = 1000

    def do_GET(self) -> None:
        """Answer with one page of keys."""
        query = parse_qs(urlsplit(self.path).query)
        prefix = query.get("prefix", [""])[0]
        start = int(query.get("continuation-token", ["0"])[0])
        found = self.files if f"{FOLDER}/".startswith(prefix) or prefix == f"{FOLDER}/" else 0
        stop = min(found, start + self.page)
        keys = "".join(_entry(number) for number in range(start, stop))
        token = f"<NextContinuationToken>{stop}</NextContinuationToken>" if stop < found else ""
        body = (
            '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult><Name>bucket</Name>'
            f"<Prefix>{prefix}</Prefix><KeyCount>{stop - start}</KeyCount><MaxKeys>{self.page}</MaxKeys>"
            f"<IsTruncated>{str(bool(token)).lower()}</IsTruncated>{token}{keys}</ListBucketResult>"
        ).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        """Log nothing."""


def _entry(number: int) -> str:
    return (
        f"<Contents><Key>{FOLDER}/{number // FILES_IN_FOLDER:06d}/utterance-{number:09d}.flac</Key>"
        f"<LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>&quot;{number:032x}&quot;</ETag>"
        f"<Size>{FILE_BYTES + number}</Size><StorageClass>STANDARD</StorageClass></Contents>"
    )


def serve(files: int) -> None:
    """Run the server, and print its port."""
    ListingServer.files = files
    server = ThreadingHTTPServer(("127.0.0.1", 0), ListingServer)
    print(server.server_address[1], flush=True)
    server.serve_forever()


@contextmanager
def listing_server(files: int) -> Iterator[dict[str, str]]:
    """Run the server in another process, and yield the variables by which others reach it."""
    command = [sys.executable, __file__, "--serve", str(files)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None, "it is a pipe"
            yield {
                "AWS_ENDPOINT_URL": f"http://127.0.0.1:{int(process.stdout.readline())}",
                "AWS_ACCESS_KEY_ID": "k",
                "AWS_SECRET_ACCESS_KEY": "s",
                "AWS_DEFAULT_REGION": "us-east-1",
            }
        finally:
            process.kill()


@dataclass(frozen=True)
class Measured:
    """Time of a listing, the largest memory of its process, and the number of files or units."""

    seconds: float
    peak_bytes: int
    count: int


def measure(way: str, files: int) -> Measured:
    """List in a new process."""
    with listing_server(files) as variables:
        done = subprocess.run(
            [sys.executable, __file__, "--once", way],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **variables},
        )
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def list_once(way: str) -> None:
    """Time one way to list, in this process."""
    from codectok.pipelines import RunOptions, TableJob, run_job
    from codectok.sources.listing.arguments import Argument
    from codectok.sources.listing.sources import list_sources
    from codectok.storage import open_file_system

    url = f"s3://{BUCKET}/{FOLDER}"
    started, count = time.perf_counter(), 0
    if way == "fsspec find":
        files, path = open_file_system(url)
        count = len(files.find(path, detail=True))
    elif way == "list_sources":
        listing = list_sources((Argument(dataset="corpus", kind="folder"),), {"corpus": url}, ("audio",))
        count = len(listing.paths)
    elif way == "run_job":
        import pyarrow as pa

        job = TableJob(
            "names", lambda unit, output: iter(()), pa.schema([("path", pa.string())]), unit_seconds=36_000.0
        )
        with tempfile.TemporaryDirectory() as folder:
            count = run_job(job, [url], folder, RunOptions(engine="local", limit=0)).summary.planned_units
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": seconds, "peak_bytes": peak, "count": count}))


def main() -> None:
    parser = argparse.ArgumentParser(description="Listing of object stores.")
    parser.add_argument("--files", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--save", action="store_true", help="also write the printed table to benchmarks/results")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--once", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve is not None:
        serve(options.serve)
    elif options.once is not None:
        list_once(options.once)
    else:
        report_all(options.files, options.save)


def report_all(counts: list[int], save: bool) -> None:
    import torch

    common: Any = importlib.import_module("common")  # of this folder; tests import this module by another name
    report = common.Report()
    report.console.print(common.machine(torch.device("cpu")))
    for way, words in WAYS.items():
        report.console.print(f"{way}: {words}")
        for files in counts if way != "imports alone" else [0]:
            found = measure(way, files)
            line = f"  {files:>9,} files {found.seconds:8.1f} s, at most {found.peak_bytes / 1e9:.2f} GB in memory"
            report.console.print(line + (f", {found.count:,} units" if way == "run_job" else ""))
    if save:
        report.save("listing-cpu")


if __name__ == "__main__":
    main()
