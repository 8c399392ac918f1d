"""`codectok decode`."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from codectok.formatting import format_duration

from .console import facts_table, progress
from .options import DeviceOption, OptionalCodecOption, codec_or_default

NAME = "decode"
EXAMPLE = "codectok decode tokens/ clip.wav --id speech-hello_1f0c2a3b4d5e_0000000000"


def run(
    codes: Annotated[str, typer.Argument(help="A file of codes, or the folder or URL of a token table.")],
    output: Annotated[Path, typer.Argument(help="A folder, new or empty, or a .wav or .flac file for one clip.")],
    codec: OptionalCodecOption = None,
    ids: Annotated[list[str] | None, typer.Option("--id", help="Decode only this clip; may be repeated.")] = None,
    where: Annotated[
        str | None,
        typer.Option(help="Decode only these rows, for example 'language == \"en\" and duration > 5'."),
    ] = None,
    device: DeviceOption = "auto",
) -> None:
    """Decode codes to audio files."""
    from codectok.atomic import remove_leftovers, replacing_folder
    from codectok.audio.files import is_output_path, write_audio
    from codectok.errors import InputError
    from codectok.loading import check_made_by, load_codec
    from codectok.tokens.codes_file import file_names, read_clips, read_codes_metadata

    metadata = read_codes_metadata(codes, allow_mixed=True)
    loaded = load_codec(codec_or_default(codec), device)
    check_made_by(loaded, codes, metadata)
    one_file = is_output_path(output)
    if one_file and (ids is None or len(ids) != 1):
        raise InputError(f"{output} is one file; name one clip with --id, or choose a folder.")
    if not one_file and output.is_dir() and any(output.iterdir()):
        raise InputError(f"{output} already holds files; choose another folder.")
    wanted = set(ids) if ids else None
    names = None if one_file else file_names(codes, wanted)
    seconds, missing = 0.0, set(ids or ())
    count = 0
    destination = output
    remove_leftovers(destination)
    made = nullcontext(output) if one_file else replacing_folder(output)
    with made as output, progress(len(ids) if ids else None, "decode: clips") as report:
        for name, clip_codes, length in read_clips(codes, wanted, where, allow_mixed=True):
            path = output if names is None else output / names.of(name, ".wav")
            # Cut to the length of the clip, since its last frame may reach beyond its end.
            blocks = loaded.decode_stream(clip_codes, length)
            n_samples = write_audio(path, blocks, loaded.decoded_sample_rate, len(clip_codes) / loaded.frame_rate)
            missing.discard(name)
            count += 1
            seconds += n_samples / loaded.decoded_sample_rate
            report.advance(f"({format_duration(seconds)} of audio)")
        if where is not None and not count:
            raise InputError(f"{codes} holds no row that matches {where}.")
        if missing:
            raise InputError(f"{codes} holds no clip {', '.join(sorted(missing))}.")
    facts_table("codectok decode", {"output": destination, "clips": f"{count:,}", "audio": format_duration(seconds)})
