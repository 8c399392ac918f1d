"""The output folder of a run: its layout, the check that it belongs to the run, and the codecs written to it."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from codectok.atomic import is_temporary, remove_leftovers_in, replacing_folder, write_text
from codectok.checkpoints.native import read_header
from codectok.codec import Codec
from codectok.config import load_mapping, parse
from codectok.errors import CheckpointError, ConfigError, InputError
from codectok.train.config import TrainConfig, changed_keys
from codectok.train.trainer.export import origin_of_step

from .checkpoint import CONFIG_FILE, latest_checkpoint
from .lock import LOCK_FILE

CHECKPOINT_FOLDER = "checkpoints"
CODEC_FOLDER = "codec"
BEST_FOLDER = "codec-best"


def config_text(config: TrainConfig) -> str:
    """The whole configuration as YAML."""
    return yaml.safe_dump(json.loads(config.model_dump_json()), sort_keys=False)


def check_output(config: TrainConfig) -> None:
    """Check that the output folder is new or belongs to a run with this configuration.

    Raises:
        InputError: it holds another run, or other files.
    """
    path = config.output / CONFIG_FILE
    if latest_checkpoint(config.output / CHECKPOINT_FOLDER):
        # Keys that are newer than the run have their defaults.
        before = parse(TrainConfig, load_mapping(path), str(path))
        changed = changed_keys(before.model_dump(mode="json"), config.model_dump(mode="json"))
        if changed:
            raise InputError(
                f"{config.output} holds a run with another configuration (different: {', '.join(changed)});"
                " choose another output."
            )
    elif path.is_file() and (config.output / LOCK_FILE).is_file():
        return  # a run that ended before its first checkpoint
    elif config.output.exists() and not _is_free(config.output):
        raise InputError(f"{config.output} already exists and holds no training run; choose another output.")


def claim_output(config: TrainConfig) -> None:
    """Check the output folder, remove temporary files of a killed run, and write the configuration to it.

    Raises:
        InputError: it holds another run, or other files.
    """
    check_output(config)
    for folder in folders_with_leftovers(config.output):
        remove_leftovers_in(folder)
    write_text(config.output / CONFIG_FILE, config_text(config))


def folders_with_leftovers(output: Path) -> tuple[Path, ...]:
    """Folders in which a killed run leaves temporary files."""
    return output, output / CHECKPOINT_FOLDER


def write_codec(codec: Codec, folder: Path) -> None:
    """Write or replace the codec in `folder`; after a kill it holds the old codec, the new one or none, never a mix."""
    with replacing_folder(folder, overwrite=True) as temporary:
        codec.save_pretrained(temporary)


def holds_codec_of(output: Path, step: int) -> bool:
    """Return True if the final codec of a run is there, undamaged, and was trained for `step` steps."""
    try:
        return read_header(output / CODEC_FOLDER).origin == origin_of_step(step)
    except (CheckpointError, ConfigError):
        return False


def _is_free(output: Path) -> bool:
    """True for a folder that holds nothing but the lock and temporary files of a run that was killed at its start."""
    return output.is_dir() and all(path.name == LOCK_FILE or is_temporary(path) for path in output.iterdir())
