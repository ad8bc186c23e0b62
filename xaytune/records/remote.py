"""Folders that are not on this machine: object stores, and whatever else pyarrow or fsspec reaches."""

from __future__ import annotations

import errno
import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from xaytune.errors import RemoteError

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

__all__ = ["RemoteError", "RemoteFolder", "is_remote"]

T = TypeVar("T")
_PAUSES_S = (0.5, 2.0, 5.0)


def is_remote(storage: str) -> bool:
    """Tells a URI (``s3://bucket/sweeps``) from a path."""
    return "://" in storage


class RemoteFolder:
    """A folder that is reached by a URI.

    Args:
        uri: As pyarrow reads it (``s3://bucket/path?region=eu-west-1``), else as fsspec does.

    Raises:
        OSError: There is no such kind of storage, or it cannot be reached.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._files, self._root = _open(uri)

    def __str__(self) -> str:
        return _shown(self.uri)

    def child(self, name: str) -> RemoteFolder:
        """Returns a folder in this one."""
        place, mark, options = self.uri.partition("?")
        return RemoteFolder(f"{place.rstrip('/')}/{name}{mark}{options}")

    def folders(self) -> list[str]:
        """Returns the names of the folders in this one."""
        from pyarrow.fs import FileSelector, FileType

        found = self._files.get_file_info(FileSelector(self._root, allow_not_found=True))
        return sorted(info.base_name for info in found if info.type == FileType.Directory)

    def names(self, folder: str) -> list[str]:
        """Returns the names of the files and folders in a folder of this one."""
        from pyarrow.fs import FileSelector

        found = self._files.get_file_info(FileSelector(self._path(folder), allow_not_found=True))
        return sorted(info.base_name for info in found)

    def sizes(self, folder: str) -> dict[str, int]:
        """Returns the sizes of the files in a folder of this one, at any depth, by their paths within this one."""
        from pyarrow.fs import FileSelector

        selector = FileSelector(self._path(folder), allow_not_found=True, recursive=True)
        found = self._files.get_file_info(selector)
        return {self._within(info.path): info.size for info in found if info.is_file}

    def size(self, file: str) -> int | None:
        """Returns the size of a file in bytes; None if there is none."""
        info = self._files.get_file_info(self._path(file))
        return info.size if info.is_file else None

    def put(self, file: str, data: bytes) -> None:
        """Writes a file, whole or not at all."""

        def write() -> None:
            self._files.create_dir(self._path(file).rpartition("/")[0])
            with self._files.open_output_stream(self._path(file)) as stream:
                stream.write(data)

        _patiently(write)

    def get(self, file: str) -> bytes | None:
        """Returns what a file holds; None if there is none."""

        def read() -> bytes | None:
            if self.size(file) is None:
                return None
            with self._files.open_input_stream(self._path(file)) as stream:
                data: bytes = stream.read()
            return data

        return _patiently(read)

    def upload(self, source: Path, file: str) -> None:
        """Copies a file or folder of this machine to here, without holding it in memory.

        Raises:
            FileNotFoundError: There is no such file.
        """
        from pyarrow.fs import LocalFileSystem

        if not source.exists():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(source))
        _patiently(lambda: self._copy(str(source), LocalFileSystem(), self._path(file), self._files))

    def copy(self, file: str, target: str) -> None:
        """Copies a file or folder within this one, without holding it in memory.

        Raises:
            FileNotFoundError: There is no such file.
        """
        if not self.has(file):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), f"{self}/{file}")
        _patiently(lambda: self._copy(self._path(file), self._files, self._path(target), self._files))

    def fetch(self, file: str, target: Path) -> bool:
        """Copies a file or folder to this machine, whole or not at all, and tells whether there is one."""
        from pyarrow.fs import LocalFileSystem

        if not _patiently(lambda: self.has(file)):
            return False
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f"{target.name}.{os.getpid()}.tmp")
        _patiently(lambda: self._copy(self._path(file), self._files, str(temporary), LocalFileSystem()))
        if target.is_dir():
            shutil.rmtree(target)
        os.replace(temporary, target)  # whoever reads it meanwhile finds the one or the other
        return True

    def has(self, file: str) -> bool:
        """Tells whether there is a file or folder."""
        from pyarrow.fs import FileType

        return bool(self._files.get_file_info(self._path(file)).type != FileType.NotFound)

    def delete(self, file: str) -> None:
        """Deletes a file or folder, if there is one."""
        from pyarrow.fs import FileType

        kind = self._files.get_file_info(self._path(file)).type
        if kind == FileType.Directory:
            self._files.delete_dir(self._path(file))
        elif kind != FileType.NotFound:
            self._files.delete_file(self._path(file))

    @staticmethod
    def _copy(source: str, source_files: FileSystem, target: str, target_files: FileSystem) -> None:
        from pyarrow.fs import copy_files

        target_files.create_dir(target.rpartition("/")[0])
        copy_files(source, target, source_filesystem=source_files, destination_filesystem=target_files)

    def _within(self, path: str) -> str:
        return path[path.index(f"{self._root}/") + len(self._root) + 1 :]

    def _path(self, file: str) -> str:
        return f"{self._root}/{file}"


def _patiently(access: Callable[[], T]) -> T:
    """Tries again what a network may refuse now and then.

    Raises:
        RemoteError: It refused every time.
    """
    for pause_s in _PAUSES_S:
        try:
            return access()
        except Exception:  # fsspec's file systems raise errors of their own
            time.sleep(pause_s)
    try:
        return access()
    except Exception as error:
        raise RemoteError(str(error)) from error


def _shown(uri: str) -> str:
    """The URI without its options and its credentials."""
    return re.sub(r"://[^/@]*@", "://", uri.partition("?")[0])


def _open(uri: str) -> tuple[FileSystem, str]:
    import pyarrow as pa
    from pyarrow import fs

    try:
        files, root = fs.FileSystem.from_uri(uri)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as refused:
        import fsspec

        try:
            other, root = fsspec.core.url_to_fs(uri)
        except (ValueError, ImportError) as error:
            raise OSError(f"{_shown(uri)}: {error} ({refused})") from None
        files = fs.PyFileSystem(fs.FSSpecHandler(other))
    return files, root.rstrip("/")
