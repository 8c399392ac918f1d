"""`codectok verify`."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from codectok.choices import KernelChoice
from codectok.formatting import format_duration, megabytes

from .console import facts_table, progress, rows_table
from .options import OptionalCodecOption, codec_or_default, given_options

if TYPE_CHECKING:
    from codectok.storage import Storage

NAME = "verify"
EXAMPLE = "codectok verify tokens/ --reencode 20 --decode 5 --to listen/"
SHOWN_SOURCES = 20
# Options that need another one.
NEEDED = {
    "codec": ("--reencode", "--decode"),
    "device": ("--reencode", "--decode"),
    "to": ("--decode",),
    "share": ("--sources",),
    "seed": ("--reencode", "--decode", "--sources"),
}


def run(
    context: typer.Context,
    target: Annotated[str, typer.Argument(help="Folder or URL written by `shard`, `tokenize`, `import` or `export`.")],
    codec: OptionalCodecOption = None,
    reencode: Annotated[int, typer.Option(min=0, help="Encode the sources of N random rows again, and compare.")] = 0,
    decode: Annotated[int, typer.Option(min=0, help="Decode N random rows to wav files.")] = 0,
    to: Annotated[Path, typer.Option(help="Folder for the wav files, which replace older ones.")] = Path("listen"),
    sources: Annotated[
        bool, typer.Option("--sources", help="Read the sources again with ffmpeg, and compare their durations.")
    ] = False,
    share: Annotated[float, typer.Option(help="Share of the sources to read again, chosen at random.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Seed for the choice of rows and sources.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Check that an output is complete and undamaged."""
    from codectok.errors import InputError
    from codectok.pipelines.verify.output import count_files, verify_output
    from codectok.storage import open_storage

    chosen = {"--reencode": reencode > 0, "--decode": decode > 0, "--sources": sources}
    _refuse_unused(context, [name for name, wanted in chosen.items() if wanted])
    if decode and to.exists() and not to.is_dir():
        raise InputError(f"{to} is a file; give a folder for the wav files.")
    storage = open_storage(target)
    with progress(count_files(storage), "verify: files") as report:
        verified = verify_output(storage, report.advance)
    facts: dict[str, object] = {} if verified.units is None else {"units": f"{verified.units:,}"}
    facts |= {
        "files": f"{verified.files:,} ({megabytes(verified.bytes)})",
        "rows": f"{verified.rows:,}",
        "audio": format_duration(verified.seconds),
    }
    if not verified.contents:
        facts["checked"] = f"hashes, records and rejects only; `{verified.verb}` has no verifier for its contents"
    if sources:
        facts |= _read_again(storage, share, seed)
    if reencode or decode:
        facts |= _sampled(target, codec_or_default(codec), reencode, decode, to, seed, device)
    facts_table(f"codectok verify {target}: no fault found", facts)


def _refuse_unused(context: typer.Context, chosen: Collection[str]) -> None:
    """Refuse options that have no effect beside the checks that were chosen."""
    from codectok.errors import InputError

    for name, needed in NEEDED.items():
        given = given_options(context, [name])
        if given and not any(check in chosen for check in needed):
            others = " or ".join(needed)
            raise InputError(f"{given[0]} has no effect without {others}; add {others}, or leave {given[0]} out.")


def _read_again(storage: Storage, share: float, seed: int) -> dict[str, object]:
    from codectok.pipelines.verify.sources import verify_sources

    with progress(None, "verify: sources") as shown:
        report = verify_sources(storage, share, seed, shown.advance)
    columns = ("source", "by ffmpeg", "in the output")
    for title, compared in (("durations that differ", report.different), ("compared in part", report.partly)):
        if compared:
            rows = [
                (c.name, f"{c.ffmpeg_seconds:.2f} s", f"{c.output_seconds:.2f} s", c.remark)
                for c in compared[:SHOWN_SOURCES]
            ]
            rows_table(_first_of(title, len(compared)), (*columns, "not compared"), rows)
    if report.unread:
        unread_rows = [(one.name, one.message) for one in report.unread[:SHOWN_SOURCES]]
        rows_table(_first_of("not read by ffmpeg", len(report.unread)), ("source", "reason"), unread_rows)
    report.check()
    unread = f"; {len(report.unread):,} cannot be read by it" if report.unread else ""
    partly = f"; {len(report.partly):,} were compared in part" if report.partly else ""
    count = f"{report.compared:,} of {report.planned:,}, {format_duration(report.seconds)}"
    return {"sources": f"{count} by ffmpeg as in the output{partly}{unread}"}


def _first_of(title: str, count: int) -> str:
    return title if count <= SHOWN_SOURCES else f"{title}: the first {SHOWN_SOURCES} of {count:,}"


def _sampled(
    table: str, codec: str, n_reencoded: int, n_decoded: int, to: Path, seed: int, device: str
) -> dict[str, object]:
    from codectok.device import resolve_device
    from codectok.loading import load_codec
    from codectok.pipelines.tokenize.reencode import decode_some, reencode
    from codectok.tokens.reader import open_table

    facts: dict[str, object] = {}
    metadata = open_table(table).metadata
    # TF32 exists only on GPUs; on a CPU, compare codes as from another device.
    dtype = "float32" if metadata.precision == "tf32" and resolve_device(device).type == "cpu" else metadata.precision
    kernels: KernelChoice = "torch" if metadata.kernels == "torch" else "auto"
    loaded = load_codec(codec, device, dtype, metadata.pack_frames, metadata.batch_seconds, kernels=kernels)
    if n_reencoded:
        found = reencode(table, loaded, n_reencoded, seed)
        share = f"{found.equal_frames:,} of {found.frames:,} frames of {found.rows:,} rows are equal"
        facts["encoded again"] = share + ("" if found.exact else ", on another kind of device")
    if n_decoded:
        facts["to listen to"] = ", ".join(str(path) for path in decode_some(table, loaded, n_decoded, to, seed))
    return facts
