"""The folder of a training run, as a report reads it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from codectok.checkpoints.native import is_checkpoint
from codectok.config import load_mapping, parse
from codectok.errors import ConfigError, InputError
from codectok.storage import is_url
from codectok.train.config import TrainConfig
from codectok.train.run.checkpoint import CONFIG_FILE, is_training_checkpoint, saved_steps
from codectok.train.run.metrics_log import TENSORBOARD_FOLDER
from codectok.train.run.output import BEST_FOLDER, CHECKPOINT_FOLDER, CODEC_FOLDER

from .events import RunEvents, read_events


@dataclass(frozen=True)
class RunFolder:
    """The files of a run.

    Attributes:
        path: folder of the run.
        config: of the run; None if this version cannot read it.
        config_text: contents of `config.yaml`.
        config_error: reason why the configuration cannot be read; None if it can.
        events: logged metrics and audio.
        checkpoints: steps of the training checkpoints.
        has_codec, has_best: True if the final and the best codec are there.
    """

    path: Path
    config: TrainConfig | None
    config_text: str
    config_error: str | None
    events: RunEvents
    checkpoints: tuple[int, ...]
    has_codec: bool
    has_best: bool


def read_run(path: str | Path) -> RunFolder:
    """Read the folder of a run that has ended, was killed, or still runs.

    Raises:
        InputError: it is not the folder of a run, or tensorboard is not installed.
    """
    if is_url(str(path)):
        raise InputError(f"report reads local runs, not {path}; copy the folder first.")
    folder = Path(path)
    config_file, logged = folder / CONFIG_FILE, folder / TENSORBOARD_FOLDER
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder}; give the output folder of a training run.")
    if is_training_checkpoint(folder):
        raise InputError(f"{folder} is a checkpoint; give the output folder of its run, two folders above.")
    if not config_file.is_file():
        raise InputError(f"{folder} is not a training run: it holds no {CONFIG_FILE}.{_runs_below(folder)}")
    config, error = None, None
    try:
        mapping = load_mapping(config_file)
        text = config_file.read_text(encoding="utf-8")
        config = parse(TrainConfig, mapping, str(config_file))
    except ConfigError as invalid:
        if not logged.is_dir():  # the configuration of something else
            raise InputError(f"{folder} is not a training run: {invalid}") from None
        text, error = config_file.read_text(encoding="utf-8", errors="replace"), str(invalid)
    return RunFolder(
        path=folder,
        config=config,
        config_text=text,
        config_error=error,
        events=read_events(logged),
        checkpoints=saved_steps(folder / CHECKPOINT_FOLDER),
        has_codec=is_checkpoint(folder / CODEC_FOLDER),
        has_best=is_checkpoint(folder / BEST_FOLDER),
    )


def _runs_below(folder: Path) -> str:
    """Name the stages of a folder that holds several runs."""
    names = sorted(path.parent.name for path in folder.glob(f"*/{CONFIG_FILE}"))
    return f" Give one of the runs in it: {', '.join(names[:5])}." if names else ""
