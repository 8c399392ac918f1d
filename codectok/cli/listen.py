"""`codectok listen`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from codectok.choices import DEFAULT_CODEC, ListeningScale, ScaleChoice
from codectok.errors import InputError
from codectok.formatting import counted

from .console import facts_table, progress, rows_table, say, warn
from .options import (
    AudioColumnOption,
    CancelledOption,
    ChannelOption,
    DeviceOption,
    DtypeOption,
    EncodingOption,
    MaxFileBytesOption,
    StrictOption,
    codec_or_default,
    given_options,
)

if TYPE_CHECKING:
    from codectok.evaluation.listening.preparation import PreparationOptions
    from codectok.evaluation.listening.results import Results
    from codectok.evaluation.listening.serving import Addresses
    from codectok.evaluation.listening.stored_test import ListeningTest

NAME = "listen"
EXAMPLE = "codectok listen listening/ --reference testset/ --codec universal-small --folder opus=reconstructions/opus"
# Options of an existing test; all others belong to its preparation.
SERVING = {"out", "host", "port", "serve"}


def run(
    context: typer.Context,
    out: Annotated[Path, typer.Argument(help="Folder of the test: a new one, or an existing test to serve again.")],
    reference: Annotated[
        list[str] | None,
        typer.Option(
            "--reference",
            help="Original recordings, as evaluate reads them; may be repeated.",
            show_default=False,
        ),
    ] = None,
    codec: Annotated[
        list[str] | None,
        typer.Option(
            "--codec",
            help="CODEC or NAME=CODEC to compare; may be repeated.",
            show_default=f"{DEFAULT_CODEC} if there is no --folder",
        ),
    ] = None,
    folder: Annotated[
        list[str] | None,
        typer.Option(
            "--folder",
            metavar="NAME=DIR",
            help="Reconstructions under the relative paths of the references; may be repeated.",
            show_default=False,
        ),
    ] = None,
    clips: Annotated[int, typer.Option(help="Number of clips, chosen at random.")] = 12,
    max_seconds: Annotated[float, typer.Option(help="Longest excerpt: the loudest part of a clip.")] = 10.0,
    seed: Annotated[int, typer.Option(help="Of the choice of clips and of the orders.")] = 0,
    scale: Annotated[
        ListeningScale,
        typer.Option(help="mushra: quality, 0 to 100; clarity: of speech and of background, 1 to 5."),
    ] = "mushra",
    keep_levels: Annotated[
        bool, typer.Option("--keep-levels", help="Do not bring stimuli to the loudness of their reference.")
    ] = False,
    host: Annotated[
        str, typer.Option(help="Address to listen at; others than loopback put a key into the test's address.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen at; 0 for a free one.")] = 8765,
    serve: Annotated[
        bool, typer.Option("--serve/--no-serve", help="Serve the test, or prepare it or write its results only.")
    ] = True,
    audio_column: AudioColumnOption = None,
    encoding: EncodingOption = None,
    max_file_bytes: MaxFileBytesOption = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "float32",
    channel: ChannelOption = "mix",
    cancelled: CancelledOption = "first",
    float_scale: Annotated[
        ScaleChoice,
        typer.Option(help="Refuse floats far beyond 1, or divide them by the scale of integers."),
    ] = "refuse",
    strict: StrictOption = False,
) -> None:
    """Run a blind listening test in the browser: codecs and folders beside a hidden reference and a low anchor."""
    from codectok.evaluation.listening.serving import check_address, check_packages, serve_test, stored_results
    from codectok.evaluation.listening.stored_test import is_listening_test, load_test

    is_new = not is_listening_test(out)
    if serve:
        check_packages()
    if is_new:
        from codectok.audio.sound import SoundOptions
        from codectok.evaluation.listening.preparation import PreparationOptions
        from codectok.evaluation.listening.selection import CorpusOptions
        from codectok.evaluation.listening.systems import parse_codec, parse_folder

        if not reference and not codec and not folder:
            raise InputError(
                f"{out} holds no listening test; pass --reference to prepare one, with --codec or --folder."
            )
        if not codec and not folder:
            codec = [codec_or_default(None)]
        sound = SoundOptions.parse(channel, cancelled, float_scale)
        options = PreparationOptions(
            sources=tuple(reference or ()),
            codecs=tuple(parse_codec(text) for text in codec or ()),
            folders=tuple(parse_folder(text) for text in folder or ()),
            clips=clips,
            max_seconds=max_seconds,
            seed=seed,
            scale=scale,
            keep_levels=keep_levels,
            device=device,
            dtype=dtype,
            corpus=CorpusOptions(audio_column, sound, strict, encoding, max_file_bytes),
        )
        if serve:
            check_address(host, port)  # before work that takes minutes
        _prepare(out, options)
    else:
        _refuse_preparation(context, out)
    test = load_test(out)
    _show_test(out, test)
    if serve:
        _show_results(out, test, serve_test(out, test, host, port, _show_addresses, warn))
    elif not is_new:
        _show_results(out, test, stored_results(out, test))


def _prepare(out: Path, options: PreparationOptions) -> None:
    from codectok.evaluation.listening.preparation import prepare_test

    with progress(None, "listen: prepare") as shown:
        test, skipped = prepare_test(out, options, shown.set_total, shown.advance)
    if len(test.clips) < options.clips:
        warn(f"Only {counted(len(test.clips), 'clip')} of {options.clips} can be used for the test.")
    if skipped.first is not None:
        warn(f"Not used: {counted(skipped.count, 'clip')}, the first: {skipped.first}")


def _refuse_preparation(context: typer.Context, out: Path) -> None:
    given = given_options(context, [name for name in context.params if name not in SERVING])
    if given:
        raise InputError(
            f"{out} holds a listening test already, which takes no {', '.join(given)}; leave them out or choose"
            " another folder."
        )


def _show_test(out: Path, test: ListeningTest) -> None:
    facts_table(
        "codectok listen",
        {
            "test": out,
            "clips": f"{len(test.clips)}, at most {test.max_seconds:g} s each",
            "systems": ", ".join(system.name for system in test.systems),
            "scale": test.scale,
        },
    )


def _show_addresses(addresses: Addresses) -> None:
    say(f"Listeners open: {addresses.listeners}")
    say(f"Results, for you alone: {addresses.results}")
    if addresses.is_open:
        say("Other machines reach this test; only people who have the complete address can open it.")
    say("Ctrl-C ends the server; every rating is saved at once.")


def _show_results(out: Path, test: ListeningTest, results: Results) -> None:
    from codectok.evaluation.listening.results import PAGE_FILE, PARQUET_FILE
    from codectok.evaluation.listening.results_page import interval_text, mean_ratings

    if not results.rows:
        say(f"No ratings yet. Serve the test again with: codectok listen {out}")
        return
    rows = [
        (scale, system, f"{mean.mean:.2f}", interval_text(mean), f"{mean.ratings:,}")
        for (scale, system), mean in mean_ratings(test, results.rows).items()
    ]
    if rows:
        rows_table("ratings on complete pages", ("scale", "system", "mean", "95 % interval", "ratings"), rows)
    facts_table(
        "results",
        {
            "listeners": results.listeners,
            "ratings": f"{len(results.rows):,}",
            "files": f"{out / PARQUET_FILE}, {out / PAGE_FILE}",
        },
    )
