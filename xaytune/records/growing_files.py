"""Files that grow, kept in a storage that takes whole files only: in parts, of which none is written twice.

The parts of ``history/00003.arrows`` are ``history/00003.arrows.parts/GENERATION-OFFSET``: what was appended
since the part before, at that offset of the file. A file that was written anew begins another generation; parts of
earlier ones do not count.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from xaytune.errors import RemoteError
from xaytune.records.remote import RemoteFolder

_SUFFIX = ".parts"
# A file that was only appended to still has these bytes where the upload ended. One that was written anew may not,
# though it may have the same inode, and be longer.
_COMPARED_BYTES = 4096
# A file of more parts is put together again once it has doubled: so it is uploaded twice at most.
_MANY = 32
# Attempts to read files while their writers write them anew, and seconds between two.
_ATTEMPTS, _AGAIN_S = 5, 0.5


@dataclass(frozen=True)
class _Part:
    generation: int
    offset: int

    @property
    def name(self) -> str:
        return f"{self.generation:06d}-{self.offset:012d}"

    @classmethod
    def named(cls, name: str) -> _Part:
        generation, _, offset = name.partition("-")
        return cls(int(generation), int(offset))


class GrowingFile:
    """Keeps the parts of a file up to date with the file.

    Args:
        path: The file, on this machine.
        remote: Where its parts are kept.
        name: The file's path there.
    """

    def __init__(self, path: Path, remote: RemoteFolder, name: str) -> None:
        self._path, self._remote, self._name, self._folder = path, remote, name, f"{name}{_SUFFIX}"
        self._generation = -1
        self._uploaded = 0  # bytes
        self._end = b""  # the last of them
        self._parts: list[_Part] = []

    def upload(self) -> None:
        """Uploads what was appended; all of it where the file was written anew."""
        with self._path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            many = len(self._parts) >= _MANY and size >= 2 * self._parts[1].offset
            if not self._parts or many or not self._continued_by(file):
                self._begin()
            if size == self._uploaded and self._parts:
                return
            file.seek(self._uploaded)
            part = _Part(self._generation, self._uploaded)
            appended = file.read(size - self._uploaded)
            self._remote.put(f"{self._folder}/{part.name}", appended)
        self._parts.append(part)
        self._uploaded += len(appended)
        self._end = (self._end + appended)[-_COMPARED_BYTES:]
        if part.offset == 0:
            self._drop_others()

    def _continued_by(self, file: BinaryIO) -> bool:
        """Whether a file is what was uploaded, or that and more."""
        file.seek(self._uploaded - len(self._end))
        return file.read(len(self._end)) == self._end

    def _begin(self) -> None:
        """Begins another generation."""
        there = [_Part.named(name) for name in self._remote.names(self._folder)]
        self._generation = max((part.generation for part in there), default=-1) + 1
        self._uploaded, self._end, self._parts = 0, b"", []

    def _drop_others(self) -> None:
        self._remote.delete(self._name)  # as earlier versions kept it: whole
        for name in self._remote.names(self._folder):
            if _Part.named(name).generation < self._generation:
                self._remote.delete(f"{self._folder}/{name}")


def fetch_parts(remote: RemoteFolder, folder: str, target: Path) -> None:
    """Brings files of this machine up to date with those of a remote folder, whole ones and ones in parts.

    Args:
        remote: Where they are kept.
        folder: The folder, there and here.
        target: What the folder is in here.
    """
    for _ in range(_ATTEMPTS):
        if _fetched(remote, folder, target):
            return
        time.sleep(_AGAIN_S)  # their writer has begun another generation meanwhile
    raise RemoteError(f"{remote} lists files in {folder} that are not there, again and again")


def _fetched(remote: RemoteFolder, folder: str, target: Path) -> bool:
    """Does so, and tells whether all that was listed was still there."""
    parts: dict[str, dict[_Part, int]] = defaultdict(dict)
    whole: dict[str, int] = {}
    for file, size in remote.sizes(folder).items():
        name, mark, part = file.partition(f"{_SUFFIX}/")
        if mark:
            parts[name][_Part.named(part)] = size
        else:
            whole[file] = size
    for name, size in whole.items():
        if name not in parts and size != _size_if_there(target / name):
            remote.fetch(name, target / name)
    for name, sizes in parts.items():
        chosen = _newest(sizes)
        current = sum(sizes[part] for part in chosen) == _size_if_there(target / name)
        if not current and not _put_together(remote, name, chosen, target / name):
            return False
    return True


def _put_together(remote: RemoteFolder, name: str, parts: list[_Part], target: Path) -> bool:
    """Puts a file together, unless a part of it is gone."""
    read = [remote.get(f"{name}{_SUFFIX}/{part.name}") for part in parts]
    known = [part for part in read if part is not None]
    if len(known) < len(read):
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    temporary.write_bytes(b"".join(known))
    os.replace(temporary, target)
    return True


def _newest(sizes: dict[_Part, int]) -> list[_Part]:
    """The parts of the newest generation, in order, as far as none is missing."""
    generation = max(part.generation for part in sizes)
    chosen: list[_Part] = []
    end = 0
    for part in sorted((part for part in sizes if part.generation == generation), key=lambda part: part.offset):
        if part.offset != end:
            break
        chosen.append(part)
        end += sizes[part]
    return chosen


def _size_if_there(file: Path) -> int | None:
    return file.stat().st_size if file.exists() else None
