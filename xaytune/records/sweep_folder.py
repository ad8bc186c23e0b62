"""The folder of a sweep: the one on this machine, and its copy in a remote storage if it has one."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from xaytune.errors import JournalError, RemoteError
from xaytune.records.growing_files import fetch_parts
from xaytune.records.history import FOLDER as HISTORY
from xaytune.records.journal import FILE_NAME, is_locked
from xaytune.records.remote import RemoteFolder, concealed, is_remote, without_secrets
from xaytune.trainer import checkpoint_files

# Folder of sweeps, where none is named.
DEFAULT_STORAGE = "runs"
# Two journals whose last bytes are alike at the same place are the same until there: each event has its time.
_COMPARED_BYTES = 4096


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
    def address(self) -> str:
        """What commands find it by: the path, or the URI without credentials."""
        return without_secrets(self.remote.uri) if self.remote is not None else str(self.local)

    @property
    def name(self) -> str:
        """The sweep's name, as it is made: the last part of its path."""
        return self.remote.name if self.remote is not None else Path(os.path.abspath(self.local)).name

    @property
    def exists(self) -> bool:
        """Whether there is a sweep; an empty journal is of one that was ended before it began."""
        return bool(self.remote is not None and self.remote.size(FILE_NAME)) or _size(self.local / FILE_NAME) > 0

    @property
    def is_written(self) -> bool | None:
        """Whether a process of this machine writes the journal; None where its lock does not tell.

        That of a working copy does not tell of another one, which a process may have.
        """
        locked = is_locked(self.local / FILE_NAME)
        return locked if self.remote is None else locked or None

    def fetch_journal(self) -> None:
        """Brings the working copy of the journal up to date."""
        if self.remote is not None and not self.is_written and not self._continues(self.remote):
            self.remote.fetch(FILE_NAME, self.local / FILE_NAME)

    def fetch_histories(self) -> None:
        """Brings the working copies of the histories up to date."""
        if self.remote is None or self.is_written:  # it runs on this machine: what is here is newer
            return
        ahead = _size(self.local / FILE_NAME) > (self.remote.size(FILE_NAME) or 0)
        if not (ahead and self._continues(self.remote)):
            fetch_parts(self.remote, HISTORY, self.local)

    def _continues(self, remote: RemoteFolder) -> bool:
        """Whether the journal here is the remote one, or that and more: then this machine ran the sweep last."""
        size = remote.size(FILE_NAME) or 0
        if size == 0 or _size(self.local / FILE_NAME) < size:
            return size == 0
        begin = max(0, size - _COMPARED_BYTES)
        with (self.local / FILE_NAME).open("rb") as journal:
            journal.seek(begin)
            return journal.read(size - begin) == remote.read(FILE_NAME, begin, size - begin)

    def grows(self, within_s: float) -> bool:
        """Watches for some seconds whether another machine writes the sweep's journal, in a remote storage."""
        if self.remote is None:
            return False
        before, until = self.remote.size(FILE_NAME), time.monotonic() + within_s
        while time.monotonic() < until:
            time.sleep(1.0)
            if self.remote.size(FILE_NAME) != before:
                return True
        return False

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
        JournalError: The path is of a user that there is not.
        RemoteError: The remote storage cannot be reached.
    """
    if not is_remote(sweep):
        return SweepFolder(_path(sweep))
    return _with_working_copy(RemoteFolder(sweep))


def _with_working_copy(remote: RemoteFolder) -> SweepFolder:
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not cache.is_absolute():  # such are to be ignored, says the XDG standard
        cache = Path.home() / ".cache"
    return SweepFolder(cache / "xaytune" / quote(without_secrets(remote.uri), safe=""), remote)


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
    except RemoteError as error:
        raise JournalError(f"the storage cannot be reached: {error}") from None
    except OSError as error:
        raise JournalError(f"{error.filename} cannot be read: {error.strerror}") from None
    hint = f"there are: {', '.join(known)}" if known else "there are none"
    where = concealed(storage).rstrip("/")
    raise JournalError(f"no sweep {concealed(sweep)!r}, neither as a folder nor under {where}/ ({hint})")


def child_of(storage: str, name: str) -> SweepFolder:
    """Returns the folder of a sweep by its name in the storage.

    Raises:
        JournalError: The path is of a user that there is not.
        RemoteError: The remote storage cannot be reached.
    """
    if is_remote(storage):
        return _with_working_copy(RemoteFolder(storage).child(name))
    return SweepFolder(_path(storage) / name)


def sweeps_in(storage: str) -> list[str]:
    """Returns the names of the sweeps in a storage.

    Raises:
        JournalError: The path is of a user that there is not.
        RemoteError: The remote storage cannot be reached.
    """
    if is_remote(storage):
        return RemoteFolder(storage).folders_with(FILE_NAME)
    return sorted(path.parent.name for path in _path(storage).glob(f"*/{FILE_NAME}"))


def _path(text: str) -> Path:
    try:
        return Path(text).expanduser().absolute()  # whatever becomes the current folder
    except RuntimeError as error:  # a ~NAME of nobody
        raise JournalError(f"{text}: {error}") from None


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0
