"""Checkpoints of DistilCodec's from the Hub, converted once into the cache."""

from __future__ import annotations

import fcntl
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from codectok.atomic import replacing_folder, write_text
from codectok.config import StrictModel

from .cache import cache_folder
from .distilcodec import import_distilcodec, step_file
from .distilcodec_config import CONFIG_FILES
from .hub import HubRepository
from .native import CONFIG_FILE, MODEL_FILE, save_checkpoint

SOURCE_FILE = "source.json"


class ConversionSource(StrictModel):
    """Contents of `source.json` beside a converted checkpoint; written last.

    Attributes:
        version: of the conversion; others are converted again.
        name, commit: on the Hugging Face Hub.
        step: of the checkpoint.
        sha256: of each file.
    """

    version: Literal[1] = 1
    name: str
    commit: str
    step: int
    sha256: dict[str, str]


def converted_checkpoint(repository: HubRepository, step: int) -> Path:
    """Return the folder of a converted checkpoint in the cache; a missing or damaged one is made first.

    Raises:
        CheckpointError: the checkpoint cannot be downloaded or converted.
        ConfigError: its configuration is not supported.
    """
    folder = cache_folder() / "codecs" / repository.name.replace("/", "--") / repository.commit / str(step)
    if _is_whole(folder):  # also in a cache that is read-only
        return folder
    with _locked(folder):
        if not _is_whole(folder):
            original = repository.download([*CONFIG_FILES, step_file(step)])
            header, network = import_distilcodec(original, step)
            with replacing_folder(folder, overwrite=True) as temporary:
                save_checkpoint(temporary, header, network.state_dict())
                source = ConversionSource(
                    name=repository.name,
                    commit=repository.commit,
                    step=step,
                    sha256={name: _sha256(temporary / name) for name in (CONFIG_FILE, MODEL_FILE)},
                )
                write_text(temporary / SOURCE_FILE, source.model_dump_json(indent=2) + "\n")
    return folder


def source_of_conversion(folder: Path) -> ConversionSource | None:
    """Read the source of a converted checkpoint; None for other folders and damaged files."""
    try:
        return ConversionSource.model_validate_json((folder / SOURCE_FILE).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def _is_whole(folder: Path) -> bool:
    source = source_of_conversion(folder)
    if source is None or not source.sha256:
        return False
    return all(
        (folder / name).is_file() and _sha256(folder / name) == expected for name, expected in source.sha256.items()
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Wait until no other process converts into `folder`."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("a") as file:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
