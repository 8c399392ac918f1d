"""Finds the folder of a model of transformers, on the local disk or on the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path

from codectok.checkpoints.hub import HUB_NAME
from codectok.errors import CheckpointError, shortened

CONFIG_FILE = "config.json"
EXTRACTOR_FILE = "preprocessor_config.json"
_FILES = [CONFIG_FILE, EXTRACTOR_FILE, "model.safetensors", "model-*.safetensors", "model.safetensors.index.json"]


def find_model(name: str) -> tuple[Path, str | None]:
    """Return the local folder of a model, and its commit if it was downloaded from the Hub.

    Raises:
        CheckpointError: there is no such model, access needs permission, or the Hub cannot be reached.
    """
    path = Path(name)
    if path.is_dir():
        return path, None
    # If the first part of the name is a local folder, assume a mistyped path instead of a Hub name.
    if path.exists() or not HUB_NAME.fullmatch(name) or Path(name.split("/")[0]).exists():
        raise CheckpointError(f"There is no folder {name} of a codec of transformers.")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    silent = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        folder = Path(snapshot_download(name, allow_patterns=_FILES))
    except GatedRepoError:
        raise CheckpointError(
            f"Access to {name} on the Hugging Face Hub needs permission; ask for it on the page of the model, then log"
            " in (hf auth login) or set HF_TOKEN."
        ) from None
    except RepositoryNotFoundError:
        raise CheckpointError(
            f"There is no folder {name}, and no model of this name on the Hugging Face Hub (a private one needs"
            " HF_TOKEN)."
        ) from None
    except LocalEntryNotFoundError:
        raise CheckpointError(
            f"There is no folder {name}, and the Hugging Face Hub cannot be reached; connect to it, or give a folder."
        ) from None
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise CheckpointError(
            f"There is no folder {name}, and it cannot be downloaded from the Hugging Face Hub: {shortened(error)}"
        ) from None
    finally:
        if not silent:
            enable_progress_bars()
    return folder, folder.name  # the cache names the folder by the commit
