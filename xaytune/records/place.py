"""The place of a sweep: its folder on this machine, and its copy in a remote storage if it has one."""

from __future__ import annotations

import os
import shutil
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

from xaytune.records.history import FOLDER as HISTORY
from xaytune.records.journal import FILE_NAME, JournalError, is_locked
from xaytune.records.remote import RemoteFolder, is_remote

__all__ = ["DEFAULT_STORAGE", "Mirror", "Place", "child_of", "find_sweep", "place_of", "sweeps_in"]

# Folder of sweeps, where none is named.
DEFAULT_STORAGE = "runs"
# Copying takes a tenth of the time at most.
_COPY_EVERY_S = 1.0
_REST = 10


@dataclass(frozen=True)
class Place:
    """Where a sweep is kept.

    Attributes:
        folder: On this machine. Of a sweep that is kept elsewhere it is a working copy.
        remote: Where it is kept, if that is not on this machine.
    """

    folder: Path
    remote: RemoteFolder | None = None

    def __str__(self) -> str:
        """The path, or the URI without its options."""
        return str(self.remote or self.folder)

    @property
    def exists(self) -> bool:
        """Whether there is a sweep."""
        if self.remote is not None and self.remote.size(FILE_NAME) is not None:
            return True
        return (self.folder / FILE_NAME).is_file()

    def fetch_journal(self) -> None:
        """Brings the working copy of the journal up to date.

        Where the one here is longer, it is the newer one: this machine ran the sweep.
        """
        if self.remote is not None and (self.remote.size(FILE_NAME) or 0) > _size(self.folder / FILE_NAME):
            self.remote.fetch(FILE_NAME, self.folder / FILE_NAME)

    def fetch_histories(self) -> None:
        """Brings the working copies of the histories up to date."""
        if self.remote is None or (self.remote.size(FILE_NAME) or 0) < _size(self.folder / FILE_NAME):
            return
        if is_locked(self.folder / FILE_NAME):
            return  # it runs on this machine: what is here is newer
        for file, size in self.remote.sizes(HISTORY).items():
            if size != _size(self.folder / file):
                self.remote.fetch(file, self.folder / file)

    def copy(self, file: str, target: str) -> None:
        """Copies a file within the sweep."""
        if self.remote is not None:
            self.remote.put(target, self.remote.get(file) or b"")
            return
        (self.folder / target).parent.mkdir(parents=True, exist_ok=True)
        temporary = self.folder / f"{target}.tmp"
        shutil.copyfile(self.folder / file, temporary)
        os.replace(temporary, self.folder / target)

    def remove(self) -> None:
        """Deletes the sweep."""
        self.delete(FILE_NAME)
        shutil.rmtree(self.folder)

    def delete(self, file: str) -> None:
        """Deletes a file, wherever it is."""
        (self.folder / file).unlink(missing_ok=True)
        if self.remote is not None:
            self.remote.delete(file)


def place_of(sweep: str) -> Place:
    """Returns the place of a sweep that is given as a path or a URI.

    Raises:
        OSError: The remote storage cannot be reached.
    """
    if not is_remote(sweep):
        return Place(Path(sweep).expanduser())
    remote = RemoteFolder(sweep)
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return Place(cache / "xaytune" / quote(str(remote), safe=""), remote)


def find_sweep(sweep: str, storage: str) -> Place:
    """Returns the place of a sweep, given as a path, as a URI, or as a name in the storage.

    Raises:
        JournalError: It is not there.
    """
    try:
        candidates = [place_of(sweep)]
        if not is_remote(sweep):
            candidates.append(child_of(storage, sweep))
        for place in candidates:
            if place.exists:
                return place
        known = sweeps_in(storage)
    except OSError as error:
        raise JournalError(f"the storage cannot be reached: {error}") from None
    hint = f"there are: {', '.join(known)}" if known else "there are none"
    raise JournalError(f"no sweep {sweep!r}, neither as a folder nor under {storage.rstrip('/')}/ ({hint})")


def child_of(storage: str, name: str) -> Place:
    """Returns the place of a name in the storage."""
    if is_remote(storage):
        return place_of(RemoteFolder(storage).child(name).uri)
    return Place(Path(storage).expanduser() / name)


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


class Mirror:
    """Copies a sweep's journal and histories to its remote storage while it runs. A context manager.

    Attributes:
        error: Why the newest copy failed, if it did; it is tried again.

    Args:
        place: The sweep's; without a remote storage there is nothing to copy.
    """

    def __init__(self, place: Place) -> None:
        self.error: OSError | None = None
        self._place = place
        self._copied: dict[str, tuple[int, int]] = {}  # the stamps of what was copied
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Mirror:
        """Begins to copy."""
        if self._place.remote is not None:
            self._thread = threading.Thread(target=self._keep, name="mirror", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Copies what is left."""
        if self._thread is not None:
            self._closing.set()
            self._thread.join()

    def _keep(self) -> None:
        took = 0.0
        closing = False
        while not closing:
            closing = self._closing.wait(max(_COPY_EVERY_S, _REST * took))
            begun = time.monotonic()
            try:
                self._copy()
                self.error = None
            except Exception as error:  # fsspec's file systems raise errors of their own
                self.error = error if isinstance(error, OSError) else OSError(str(error))
            took = time.monotonic() - begun

    def _copy(self) -> None:
        """Copies what has changed: the journal last, for it must not speak of what is not there."""
        folder, remote = self._place.folder, self._place.remote
        assert remote is not None
        as_it_is, journal = _stamp(folder / FILE_NAME), (folder / FILE_NAME).read_bytes()
        for path in (folder / HISTORY).glob("*.arrows"):
            file, stamp = f"{HISTORY}/{path.name}", _stamp(path)
            if self._copied.get(file) != stamp:
                remote.put(file, path.read_bytes())
                self._copied[file] = stamp
        if self._copied.get(FILE_NAME) != as_it_is:
            remote.put(FILE_NAME, journal[: journal.rfind(b"\n") + 1])
            self._copied[FILE_NAME] = as_it_is


def _stamp(file: Path) -> tuple[int, int]:
    """Changes whenever the file does."""
    status = file.stat()
    return status.st_size, status.st_mtime_ns
