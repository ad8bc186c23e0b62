"""What a trial prints, kept with its sweep."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TextIO

__all__ = ["OutputFile"]


class OutputFile(io.TextIOBase):
    """A text file that is made when something is written to it.

    Args:
        path: Where; missing folders are made.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: TextIO | None = None

    def write(self, text: str) -> int:
        """Writes text, line by line."""
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("a", buffering=1, encoding="utf-8")
        return self._file.write(text)

    def close(self) -> None:
        """Closes the file, if there is one."""
        if self._file is not None:
            self._file.close()
        super().close()
