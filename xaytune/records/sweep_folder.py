"""The folder of a sweep: the one on this machine, and its copy in a remote storage if it has one."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from xaytune.errors import CheckpointError, JournalError
from xaytune.records.history import FOLDER as HISTORY
from xaytune.records.journal import FILE_NAME, is_locked
from xaytune.records.parts import fetch_parts
from xaytune.records.remote import RemoteFolder, is_remote
from xaytune.trainer import checkpoint_files

__all__ = ["DEFAULT_STORAGE", "SweepFolder", "child_of", "find_sweep", "sweep_folder_of", "sweeps_in"]

# Folder of sweeps, where none is named.
DEFAULT_STORAGE = "runs"


@dataclass(frozen=True)
class SweepFolder:
    """Where a sweep is kept.

    Attributes:
        local: On this machine. Of a sweep that is kept elsewhere it is a working copy.
        remote: Where it is kept, if that is not on this machine.
    """

    local: Path
    remote: RemoteFolder | None = None

    def __str__(self) -> str:
        """The path, or the URI without its options."""
        return str(self.remote or self.local)

    @property
    def exists(self) -> bool:
        """Whether there is a sweep; an empty journal is of one that was ended before it began."""
        return bool(self.remote is not None and self.remote.size(FILE_NAME)) or _size(self.local / FILE_NAME) > 0

    def fetch_journal(self) -> None:
        """Brings the working copy of the journal up to date.

        Where the one here is longer, it is the newer one: this machine ran the sweep.
        """
        if self.remote is not None and (self.remote.size(FILE_NAME) or 0) > _size(self.local / FILE_NAME):
            self.remote.fetch(FILE_NAME, self.local / FILE_NAME)

    def fetch_histories(self) -> None:
        """Brings the working copies of the histories up to date."""
        if self.remote is None or (self.remote.size(FILE_NAME) or 0) < _size(self.local / FILE_NAME):
            return
        if is_locked(self.local / FILE_NAME):
            return  # it runs on this machine: what is here is newer
        fetch_parts(self.remote, HISTORY, self.local)

    def copy(self, checkpoint: str, target: str) -> None:
        """Copies a checkpoint within the sweep, a file or a folder.

        Raises:
            CheckpointError: There is no such checkpoint.
        """
        if self.remote is None:
            checkpoint_files.copy(self.local / checkpoint, self.local / target)
            return
        try:
            self.remote.copy(checkpoint, target)
        except FileNotFoundError:
            raise CheckpointError(f"{self}/{checkpoint}: there is no such checkpoint") from None

    def remove(self) -> None:
        """Deletes the sweep."""
        self.delete(FILE_NAME)
        shutil.rmtree(self.local)

    def delete(self, file: str) -> None:
        """Deletes a file or folder, wherever it is, if there is one."""
        checkpoint_files.delete(self.local / file)
        if self.remote is not None:
            self.remote.delete(file)


def sweep_folder_of(sweep: str) -> SweepFolder:
    """Returns the folder of a sweep that is given as a path or a URI.

    Raises:
        OSError: The remote storage cannot be reached.
    """
    if not is_remote(sweep):
        return SweepFolder(Path(sweep).expanduser())
    remote = RemoteFolder(sweep)
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return SweepFolder(cache / "xaytune" / quote(str(remote), safe=""), remote)


def find_sweep(sweep: str, storage: str) -> SweepFolder:
    """Returns the folder of a sweep, given as a path, as a URI, or as a name in the storage.

    Raises:
        JournalError: It is not there.
    """
    try:
        candidates = [sweep_folder_of(sweep)]
        if not is_remote(sweep):
            candidates.append(child_of(storage, sweep))
        for sweep_folder in candidates:
            if sweep_folder.exists:
                return sweep_folder
        known = sweeps_in(storage)
    except OSError as error:
        raise JournalError(f"the storage cannot be reached: {error}") from None
    hint = f"there are: {', '.join(known)}" if known else "there are none"
    raise JournalError(f"no sweep {sweep!r}, neither as a folder nor under {storage.rstrip('/')}/ ({hint})")


def child_of(storage: str, name: str) -> SweepFolder:
    """Returns the folder of a sweep by its name in the storage."""
    if is_remote(storage):
        return sweep_folder_of(RemoteFolder(storage).child(name).uri)
    return SweepFolder(Path(storage).expanduser() / name)


def sweeps_in(storage: str) -> list[str]:
    """Returns the names of the sweeps in a storage.

    Raises:
        OSError: The remote storage cannot be reached.
    """
    if is_remote(storage):
        return RemoteFolder(storage).folders()
    return sorted(path.parent.name for path in Path(storage).expanduser().glob(f"*/{FILE_NAME}"))


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0
