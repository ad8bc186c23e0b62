"""A sweep's journal and histories, copied to its remote storage while it runs."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import TracebackType

from xaytune.records.growing_files import GrowingFile
from xaytune.records.history import FOLDER as HISTORY
from xaytune.records.journal import FILE_NAME
from xaytune.records.sweep_folder import SweepFolder

# Copying takes a tenth of the time at most.
_COPY_EVERY_S = 1.0
_REST = 10


class Mirror:
    """Copies a sweep's journal and histories to its remote storage while it runs. A context manager.

    Attributes:
        error: Why the newest copy failed, if it did; it is tried again.

    Args:
        sweep_folder: The sweep's; without a remote storage there is nothing to copy.
    """

    def __init__(self, sweep_folder: SweepFolder) -> None:
        self.error: OSError | None = None
        self._sweep_folder = sweep_folder
        self._copied: dict[str, tuple[int, int]] = {}  # the stamps of what was copied
        self._histories: dict[str, GrowingFile] = {}
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Mirror:
        """Begins to copy."""
        if self._sweep_folder.remote is not None:
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
            closing = self._closing.wait(max(_COPY_EVERY_S, _REST * took))  # at once where it is closing
            begun = time.monotonic()
            try:
                self._copy()
                self.error = None
            except Exception as error:  # fsspec's file systems raise errors of their own
                self.error = error if isinstance(error, OSError) else OSError(str(error))
            took = time.monotonic() - begun

    def _copy(self) -> None:
        """Copies what has changed: the journal last, for it must not speak of what is not there."""
        folder, remote = self._sweep_folder.local, self._sweep_folder.remote
        assert remote is not None
        as_it_is, journal = _stamp(folder / FILE_NAME), (folder / FILE_NAME).read_bytes()
        for path in (folder / HISTORY).glob("*.arrows"):
            file, stamp = f"{HISTORY}/{path.name}", _stamp(path)
            if self._copied.get(file) != stamp:
                history = self._histories.setdefault(file, GrowingFile(path, remote, file))
                history.upload()
                self._copied[file] = stamp
        if self._copied.get(FILE_NAME) != as_it_is:
            remote.put(FILE_NAME, journal[: journal.rfind(b"\n") + 1])
            self._copied[FILE_NAME] = as_it_is


def _stamp(file: Path) -> tuple[int, int]:
    """Changes whenever the file does."""
    status = file.stat()
    return status.st_size, status.st_mtime_ns
