"""Text on its way to people: no control characters, and no stream that could end a sweep."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import IO, Any

_MOST = 60


def printable(text: str) -> str:
    """Returns text that only prints: what would move a cursor, ring a bell or turn letters around is escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else _escaped(c) for c in text)


def one_line(text: str) -> str:
    """The same, with line breaks escaped too."""
    return "".join(c if c.isprintable() else _escaped(c) for c in text)


def shortened(text: str, most: int = _MOST) -> str:
    """Returns a line of so many characters at most: of a longer one its beginning and its end."""
    line = one_line(text)
    if len(line) <= most:
        return line
    end = most // 4
    return f"{line[: most - end - 3]}...{line[-end:]}"


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


class Lenient:
    """A text stream that whoever runs a sweep can write to without risk.

    Characters that it cannot encode are replaced. Once whoever reads it is gone (a closed pipe, a dead terminal, a
    full disk), what is written is dropped.

    Args:
        stream: The stream.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._gone = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes what can be written."""
        self._attempt(lambda: self._put(text))
        return len(text)

    def flush(self) -> None:
        """Flushes what can be flushed."""
        self._attempt(self._stream.flush)

    def _put(self, text: str) -> None:
        try:
            self._stream.write(text)
        except UnicodeEncodeError as error:
            self._stream.write(text.encode(error.encoding, "replace").decode(error.encoding))

    def _attempt(self, action: Callable[[], None]) -> None:
        if self._gone:
            return
        try:
            action()
        except (OSError, ValueError):  # a closed file is a ValueError
            self._gone = True
            _discard(self._stream)


def _discard(stream: IO[str]) -> None:
    """Lets what a stream still holds go nowhere: Python would fail to write it when it exits."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
