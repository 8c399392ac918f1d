"""Repositories on the Hugging Face Hub: their files, downloads, and one sentence for each way in which they fail."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from codectok.atomic import write_text
from codectok.errors import CheckpointError, CodectokError, shortened

from .cache import cache_folder

# `organisation/name`, or `organisation/name#REVISION`.
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(#[\w.-]+)?")
COMMIT = re.compile(r"[0-9a-f]{40}")
# Without an answer to its first request after this time, the Hub counts as unreachable.
TIMEOUT_SECONDS = 10.0

log = logging.getLogger(__name__)


def download_snapshot(name: str, patterns: Sequence[str], revision: str | None = None) -> tuple[Path, str]:
    """Download files of a repository into the Hub's cache, or find them there if the Hub cannot be reached.

    Args:
        name: `organisation/name`, or `organisation/name#REVISION`.
        patterns: of files to download, such as "config.json" or "*.safetensors".
        revision: branch, tag or commit; None for the main branch.

    Returns:
        The folder of the files, and the commit.

    Raises:
        CheckpointError: the repository is missing, gated or unreachable, or huggingface_hub is not installed.
    """
    repository = HubRepository.open(name, revision)
    return repository.download(patterns), repository.commit


def commit_of_folder(folder: Path) -> str | None:
    """Return the commit whose files are in `folder`; None outside of the Hub's cache."""
    in_cache = folder.parent.name == "snapshots" and folder.parent.parent.name.startswith("models--")
    return folder.name if in_cache and COMMIT.fullmatch(folder.name) else None


@dataclass(frozen=True)
class HubRepository:
    """A repository at one commit.

    Attributes:
        name: `organisation/name`.
        revision: branch, tag or commit that was asked for; None for the main branch.
        commit: the commit.
        files: paths of all files.
        cached: folder in the Hub's cache, if the Hub cannot be reached; None otherwise.
    """

    name: str
    revision: str | None
    commit: str
    files: tuple[str, ...]
    cached: Path | None = None

    @classmethod
    def open(cls, name: str, revision: str | None = None) -> HubRepository:
        """Ask the Hub for the commit and the files, or the cache if the Hub cannot be reached.

        The files of a commit never change: if they are known from an earlier answer, the Hub is not asked.

        Args:
            name, revision: as in `download_snapshot`.

        Raises:
            CheckpointError: see `download_snapshot`.
        """
        name, _, chosen = name.partition("#")
        revision = revision or chosen or None
        _check_installed(name)
        if revision is not None and COMMIT.fullmatch(revision):
            known = _recorded_files(name, revision)
            if known is not None:
                return cls(name, revision, revision, known)
        from huggingface_hub import HfApi

        try:
            with _hub_errors(name, revision):
                found = HfApi().model_info(name, revision=revision, timeout=TIMEOUT_SECONDS)
        except _UnreachableError as error:
            return cls._open_cached(name, revision, error)
        files = tuple(sorted(sibling.rfilename for sibling in found.siblings or ()))
        assert found.sha is not None, "the Hub names the commit of every repository"
        _record_files(name, found.sha, files)
        return cls(name, revision, found.sha, files)

    @classmethod
    def _open_cached(cls, name: str, revision: str | None, unreachable: _UnreachableError) -> HubRepository:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError

        try:
            folder = Path(snapshot_download(name, revision=revision, allow_patterns=[], local_files_only=True))
        except LocalEntryNotFoundError:
            raise CheckpointError(f"{unreachable}, and it is not in the local cache.") from None
        if not unreachable.wanted:
            log.warning("%s; the copy in the local cache is used (commit %s).", unreachable, folder.name[:12])
        files = _recorded_files(name, folder.name)
        if files is None:  # another program filled the cache
            files = tuple(sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()))
        return cls(name, revision, folder.name, files, folder)

    def download(self, patterns: Sequence[str]) -> Path:
        """Download the files that match `patterns`, and return their folder.

        Raises:
            CheckpointError: no file matches, or they cannot be downloaded.
        """
        from huggingface_hub import hf_hub_download

        wanted = [file for file in self.files if any(fnmatchcase(file, pattern) for pattern in patterns)]
        if not wanted:
            raise CheckpointError(f"{self.name} on the Hugging Face Hub holds no {' or '.join(patterns)}.")
        if self.cached is not None:
            missing = [file for file in wanted if not (self.cached / file).is_file()]
            if missing:
                raise CheckpointError(
                    f"{self.name} is only partly in the local cache: {missing[0]} is missing; load it once online."
                )
            return self.cached
        folder = Path()
        for file in wanted:
            try:
                with _hub_errors(self.name, self.revision):
                    path = Path(hf_hub_download(self.name, file, revision=self.revision))
            except _UnreachableError as error:
                raise CheckpointError(f"{error}; try again later.") from None
            folder = path.parents[len(Path(file).parts) - 1]
            if folder.name != self.commit:
                raise CheckpointError(f"{self.name} changed while it was downloaded; run the same command again.")
        return folder


class _UnreachableError(CheckpointError):
    """The Hub did not answer, or must not be asked; `wanted` if the user forbids downloads."""

    def __init__(self, message: str, wanted: bool = False) -> None:
        super().__init__(message)
        self.wanted = wanted


def _check_installed(name: str) -> None:
    try:
        import huggingface_hub  # noqa: F401
    except ImportError:
        raise CheckpointError(
            f"There is no codec folder {name}; if it is a name on the Hugging Face Hub,"
            " install huggingface_hub first (pip install huggingface_hub)."
        ) from None


@contextmanager
def _hub_errors(name: str, revision: str | None) -> Iterator[None]:
    """Replace the errors of huggingface_hub by one sentence each."""
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError:
        raise CheckpointError(
            f"{name} is gated on the Hugging Face Hub: accept its terms on its page there, and log in (hf auth login)."
        ) from None
    except errors.RevisionNotFoundError:
        raise CheckpointError(f"{name} on the Hugging Face Hub has no revision {revision}.") from None
    except errors.RepositoryNotFoundError:
        raise CheckpointError(
            f"There is no codec folder {name}, and no such name on the Hugging Face Hub; if it is private there, log in"
            " (hf auth login)."
        ) from None
    except errors.HFValidationError:
        raise CheckpointError(f"There is no codec folder {name}, and the Hugging Face Hub forbids this name.") from None
    except errors.HfHubHTTPError as error:
        raise _error_of_status(name, error.response.status_code) from None
    except errors.OfflineModeIsEnabled:
        raise _UnreachableError(f"{name} cannot be downloaded because HF_HUB_OFFLINE is set", wanted=True) from None
    except Exception as error:  # the classes of network errors depend on the version of the library
        if isinstance(error, OSError) and error.errno is not None and not isinstance(error, ConnectionError):
            raise  # a full disk
        raise _UnreachableError(
            f"The Hugging Face Hub cannot be reached for {name} ({type(error).__name__}: {shortened(error)})"
        ) from None


def _error_of_status(name: str, status: int) -> CodectokError:
    if status in (401, 403):
        return CheckpointError(
            f"The Hugging Face Hub refuses access to {name} (status {status}); check your token (hf auth login)."
        )
    if status == 404:
        return CheckpointError(f"{name} on the Hugging Face Hub lacks a file that it lists; try again later.")
    return _UnreachableError(f"The Hugging Face Hub fails to serve {name} (status {status})")


def _record_of_files(name: str, commit: str) -> Path:
    """Path of the list of files of a commit, which the Hub's cache does not keep."""
    return cache_folder() / "hub" / name.replace("/", "--") / f"{commit}.json"


def _record_files(name: str, commit: str, files: tuple[str, ...]) -> None:
    if _recorded_files(name, commit) == files:
        return
    try:
        write_text(_record_of_files(name, commit), json.dumps(files) + "\n")
    except OSError as error:
        log.warning("%s cannot be written (%s); %s may not load offline.", cache_folder(), error.strerror, name)


def _recorded_files(name: str, commit: str) -> tuple[str, ...] | None:
    path = _record_of_files(name, commit)
    try:
        return tuple(str(file) for file in json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):  # none yet, or a damaged one
        return None
