"""Finds a codec of this architecture by its name: built in, on the local disk, or on the Hugging Face Hub."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from codectok.config import PRESETS, load_mapping
from codectok.errors import CheckpointError, ConfigError
from codectok.model.network import CodecNetwork
from codectok.names import shortened

from .built_in import built_in_codec
from .converted import converted_checkpoint, source_of_conversion
from .distilcodec import import_distilcodec, step_of_file, steps_in
from .distilcodec_config import CONFIG_FILES
from .hub import HUB_NAME, HubRepository, commit_of_folder
from .native import CONFIG_FILE, MODEL_FILE, CheckpointHeader, is_checkpoint, load_checkpoint

SHOWN_CHARACTERS = 60  # of a text in a foreign configuration

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CodecPlace:
    """A codec on the local disk.

    Attributes:
        folder: holds its files.
        step: of a DistilCodec checkpoint; None for a codec of ours.
        revision: commit on the Hugging Face Hub; None for a local folder.
        built_in: name of a built-in codec; None for all others.
    """

    folder: Path
    step: int | None = None
    revision: str | None = None
    built_in: str | None = None

    @property
    def name(self) -> str:
        """Name by which the same codec is found from any folder."""
        if self.built_in is not None:
            return self.built_in
        folder = str(self.folder.resolve())
        if self.step is None:
            return folder
        name = f"{folder}@{self.step}"
        return f"{folder}/@{self.step}" if Path(name).exists() else name  # another folder has this very name

    def load(self) -> tuple[CheckpointHeader, CodecNetwork]:
        """Read the checkpoint; see `load_checkpoint` and `import_distilcodec`."""
        return load_checkpoint(self.folder) if self.step is None else import_distilcodec(self.folder, self.step)


def find_codec(name: str | Path) -> CodecPlace:
    """Find a codec: a built-in one, a folder of ours or of DistilCodec's, or a name on the Hub, to be downloaded.

    A string that names a built-in codec goes before a folder of this name; a `Path` that exists is always a folder.

    `NAME@STEP` chooses a step of DistilCodec's, `NAME#REVISION` a commit, branch or tag on the Hub. Without a step a
    folder must hold one only; of several on the Hub the newest is taken, and a warning is logged.

    Raises:
        CheckpointError: the name is empty, there is no such codec, it cannot be downloaded, or several steps are there.
    """
    built_in = built_in_codec(str(name))
    if built_in is not None and (isinstance(name, str) or not name.exists()):
        if Path(name).exists():
            _warn_of_folder(str(name))
        return CodecPlace(built_in, built_in=str(name))
    base, step = _split_step(str(name))
    if not base:
        raise CheckpointError("The name of the codec is empty; name a codec, or . for the one in the current folder.")
    path = Path(base)
    if path.is_dir():
        return _local_codec(path, step, str(name))
    if str(name) in PRESETS:
        raise CheckpointError(f"{name} is a preset without weights; train it first, or give a codec's folder.")
    if path.exists() or not is_hub_name(base):
        raise CheckpointError(f"There is no codec folder {name}.")
    return _codec_on_hub(HubRepository.open(base), step)


@cache
def _warn_of_folder(name: str) -> None:
    """Warn, once in a process, that a folder has the name of a built-in codec."""
    log.warning("%s is the built-in codec; write ./%s for the one in this folder.", name, name)


def is_local_name(name: str) -> bool:
    """Return True if `name` is a local path, or a local folder and a step."""
    return Path(name).exists() or Path(_split_step(name)[0]).is_dir()


def is_hub_name(name: str) -> bool:
    """Return True if `name` has the form of a name on the Hub, with or without a step, and not of a mistyped path.

    The first part of a mistyped path is assumed to be a local folder.
    """
    return HUB_NAME.fullmatch(name.partition("@")[0]) is not None and not Path(name.split("/")[0]).exists()


def pinned_name(name: str) -> str:
    """Return a name on the Hub with its present commit, `organisation/name#COMMIT`; other names stay as they are.

    Folders within the repository may follow its name.

    Raises:
        CheckpointError: there is no such repository, or its commit is unknown because the Hub cannot be reached.
    """
    organisation, _, rest = name.partition("/")
    repository, slash, within = rest.partition("/")
    if not is_hub_name(f"{organisation}/{repository}"):
        return name
    found = HubRepository.open(f"{organisation}/{repository}")
    return f"{found.name}#{found.commit}{slash}{within}"


def _split_step(name: str) -> tuple[str, str | None]:
    """Split `NAME@STEP`; an existing path is a name, whatever it contains."""
    base, at, step = name.rpartition("@")
    return (base, step) if at and not Path(name).exists() else (name, None)


def _local_codec(folder: Path, step: str | None, name: str) -> CodecPlace:
    steps = steps_in(folder)
    if step is None and is_checkpoint(folder):
        _refuse_transformers(folder, name)
        source = source_of_conversion(folder)
        return CodecPlace(folder, revision=commit_of_folder(folder.resolve()) if source is None else source.commit)
    if not steps:
        _refuse_transformers(folder, str(folder))
        if step is None:
            raise CheckpointError(
                f"{folder} is not a codec: it must hold {CONFIG_FILE} and {MODEL_FILE}, or {CONFIG_FILES[0]} and a file"
                " such as g_00204000 of DistilCodec's."
            )
        _refuse_step(str(folder), step)
    return CodecPlace(folder, _chosen_step(str(folder), steps, step))


def _codec_on_hub(repository: HubRepository, step: str | None) -> CodecPlace:
    name = repository.name
    found = [step_of_file(file) for file in repository.files]
    steps = sorted(number for number in found if number is not None)
    if steps and any(file in repository.files for file in CONFIG_FILES):
        if step is None and len(steps) > 1:
            log.warning(
                "%s holds the steps %s; the newest is used (another: %s@%d).", name, _listed(steps), name, steps[0]
            )
        chosen = max(steps) if step is None else _chosen_step(name, steps, step)
        return CodecPlace(converted_checkpoint(repository, chosen), revision=repository.commit)
    if CONFIG_FILE in repository.files:
        _refuse_transformers(repository.download([CONFIG_FILE]), name)
    if not {CONFIG_FILE, MODEL_FILE} <= set(repository.files):
        raise CheckpointError(
            f"{name} on the Hugging Face Hub is not a codec: it must hold {CONFIG_FILE} and {MODEL_FILE}, or"
            f" {CONFIG_FILES[0]} and a file such as g_00204000 of DistilCodec's."
        )
    if step is not None:
        _refuse_step(name, step)
    return CodecPlace(repository.download([CONFIG_FILE, MODEL_FILE]), revision=repository.commit)


def _chosen_step(name: str, steps: Collection[int], step: str | None) -> int:
    if step is None:
        if len(steps) > 1:
            raise CheckpointError(f"{name} holds several steps ({_listed(steps)}); choose one: {name}@{max(steps)}.")
        return next(iter(steps))
    if not re.fullmatch(r"\d{1,8}", step, re.ASCII):
        raise CheckpointError(f"@{step} is not a step; choose one of {name} ({_listed(steps)}): {name}@{max(steps)}.")
    if int(step) not in steps:
        raise CheckpointError(f"{name} holds no step {int(step)}; it holds {_listed(steps)}.")
    return int(step)


def _refuse_step(name: str, step: str) -> None:
    raise CheckpointError(f"{name} has no steps to choose from, as checkpoints of DistilCodec have; leave @{step} out.")


def _refuse_transformers(folder: Path, name: str) -> None:
    """Raise a `CheckpointError` if `folder` holds a model of transformers."""
    if not (folder / CONFIG_FILE).is_file():
        return
    try:
        config = load_mapping(folder / CONFIG_FILE)
    except ConfigError:
        return  # the reader of checkpoints reports it
    if "model_type" in config and "format" not in config:
        model_type = shortened(str(config["model_type"]), SHOWN_CHARACTERS)
        raise CheckpointError(f"{name} is a model of transformers ({model_type}); name it transformers:{name}.")


def _listed(steps: Collection[int]) -> str:
    return ", ".join(str(step) for step in sorted(steps))
