"""Folders that are not on this machine: object stores, and whatever else pyarrow or fsspec reaches."""

from __future__ import annotations

import copy
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
    from pyarrow.fs import FileInfo, FileSelector, FileSystem

T = TypeVar("T")
_PAUSES_S = (0.5, 2.0, 5.0)
# What a file's name ends with until it is whole.
_UNFINISHED = ".tmp"
# Options that hold credentials.
_SECRET = re.compile(r"key|secret|token|pass|sas|sig|cred", re.IGNORECASE)


def is_remote(storage: str) -> bool:
    """Tells a URI (``s3://bucket/sweeps``) from a path."""
    return "://" in storage


def child_uri(uri: str, name: str) -> str:
    """Returns the URI of a folder in a folder."""
    place, mark, options = uri.partition("?")
    root = place if place.endswith("://") else f"{place.rstrip('/')}/"
    return f"{root}{name}{mark}{options}"


def without_options(uri: str) -> str:
    """Returns a URI without its options and its credentials."""
    return re.sub(r"://[^/]*@", "://", uri.partition("?")[0])


def concealed(storage: str) -> str:
    """Returns a path, or a URI as messages show it: without credentials even where nobody can read it as a URI."""
    return re.sub(r"://.*@", "://", storage.partition("?")[0]) if is_remote(storage) else storage


def without_secrets(uri: str) -> str:
    """Returns a URI without its credentials, with all other options: what may be shown and still be used."""
    options = uri.partition("?")[2].split("&")
    shown = "&".join(option for option in options if not _SECRET.search(option.partition("=")[0]))
    return without_options(uri) + (f"?{shown}" if shown else "")


class RemoteFolder:
    """A folder that is reached by a URI.

    Args:
        uri: As pyarrow reads it (``s3://bucket/path?region=eu-west-1``), else as fsspec does.

    Raises:
        RemoteError: There is no such kind of storage, or it cannot be reached.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._files, self._root = _open(uri)

    def __str__(self) -> str:
        return without_options(self.uri)

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self._root.rpartition("/")[2]

    def child(self, name: str) -> RemoteFolder:
        """Returns a folder in this one, without reaching for the storage once more."""
        child = copy.copy(self)
        child.uri, child._root = child_uri(self.uri, name), f"{self._root}/{name}"
        return child

    def folders_with(self, file: str) -> list[str]:
        """Returns the names of the folders in this one that have a file."""
        from pyarrow.fs import FileSelector, FileType

        found = self._infos(FileSelector(self._root, allow_not_found=True))
        names = sorted(info.base_name for info in found if info.type == FileType.Directory)
        files = self._infos([self._path(f"{name}/{file}") for name in names])
        return [name for name, info in zip(names, files, strict=True) if info.is_file]

    def names(self, folder: str) -> list[str]:
        """Returns the names of the files and folders in a folder of this one."""
        from pyarrow.fs import FileSelector

        found = _patiently(lambda: self._infos(FileSelector(self._path(folder), allow_not_found=True)))
        return sorted(info.base_name for info in found if not info.base_name.endswith(_UNFINISHED))

    def sizes(self, folder: str) -> dict[str, int]:
        """Returns the sizes of the files in a folder of this one, at any depth, by their paths within this one."""
        from pyarrow.fs import FileSelector

        found = self._infos(FileSelector(self._path(folder), allow_not_found=True, recursive=True))
        files = [info for info in found if info.is_file and not info.base_name.endswith(_UNFINISHED)]
        return {self._within(info.path): info.size for info in files}

    def size(self, file: str) -> int | None:
        """Returns the size of a file in bytes; None if there is none."""
        (info,) = self._infos([self._path(file)])
        return info.size if info.is_file else None

    def put(self, file: str, data: bytes) -> None:
        """Writes a file, whole or not at all."""
        _patiently(lambda: self._write(self._path(file), data))

    def _write(self, path: str, data: bytes) -> None:
        from pyarrow.fs import LocalFileSystem

        self._files.create_dir(path.rpartition("/")[0])
        # An object is there once it is whole; a file is seen while it grows.
        grows = isinstance(self._files, LocalFileSystem)
        written = f"{path}.{os.getpid()}{_UNFINISHED}" if grows else path
        with self._files.open_output_stream(written) as stream:
            stream.write(data)
        if grows:
            self._files.move(written, path)

    def get(self, file: str) -> bytes | None:
        """Returns what a file holds; None if there is none."""

        def read() -> bytes | None:
            if self.size(file) is None:
                return None
            with self._files.open_input_stream(self._path(file)) as stream:
                data: bytes = stream.read()
            return data

        return _patiently(read)

    def read(self, file: str, begin: int, length: int) -> bytes:
        """Returns a part of a file, in bytes."""

        def read() -> bytes:
            with self._files.open_input_file(self._path(file)) as stream:
                data: bytes = stream.read_at(length, begin)
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

        if not self.has(file):
            return False
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f"{target.name}.{os.getpid()}{_UNFINISHED}")
        _patiently(lambda: self._copy(self._path(file), self._files, str(temporary), LocalFileSystem()))
        if target.is_dir():
            shutil.rmtree(target)
        os.replace(temporary, target)  # whoever reads it meanwhile finds the one or the other
        return True

    def has(self, file: str) -> bool:
        """Tells whether there is a file or folder."""
        from pyarrow.fs import FileType

        (info,) = _patiently(lambda: self._infos([self._path(file)]))
        return bool(info.type != FileType.NotFound)

    def delete(self, file: str) -> None:
        """Deletes a file or folder, if there is one."""
        _patiently(lambda: self._delete(file))

    def _delete(self, file: str) -> None:
        from pyarrow.fs import FileType

        (info,) = self._infos([self._path(file)])
        if info.type == FileType.Directory:
            self._files.delete_dir(self._path(file))
        elif info.type != FileType.NotFound:
            self._files.delete_file(self._path(file))

    def _infos(self, which: FileSelector | list[str]) -> list[FileInfo]:
        """What there is of what is named.

        Raises:
            RemoteError: The storage cannot be asked.
        """
        try:
            return list(self._files.get_file_info(which))
        except Exception as error:  # fsspec's file systems raise errors of their own
            raise RemoteError(f"{concealed(self.uri)}: {error}") from error

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


def _open(uri: str) -> tuple[FileSystem, str]:
    import pyarrow as pa
    from pyarrow import fs

    try:
        files, root = fs.FileSystem.from_uri(uri)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as refused:
        import fsspec

        try:
            other, root = fsspec.core.url_to_fs(uri)
        except Exception as error:  # each file system has errors of its own
            why = f"{error} ({refused})".replace(uri, concealed(uri))
            raise RemoteError(f"{concealed(uri)}: {why}") from None
        files = fs.PyFileSystem(fs.FSSpecHandler(other))
    except OSError as error:
        why = str(error).partition("\n")[0]  # of hdfs, each place where it has looked for Java has a line
        raise RemoteError(f"{concealed(uri)}: {why}") from None
    else:
        if not root:  # the server would be asked for all buckets, again and again
            raise RemoteError(f"{concealed(uri)}: it names no bucket")
    return files, root.rstrip("/")
