"""Histories in an object store: what was appended is uploaded, and read back in whole files."""

from __future__ import annotations

from pathlib import Path

import pytest

from xaytune.records import history
from xaytune.records.growing_files import GrowingFile, fetch_parts
from xaytune.records.history import Row
from xaytune.records.journal import FILE_NAME, Journal
from xaytune.records.mirror import Mirror
from xaytune.records.remote import RemoteFolder
from xaytune.records.sweep_folder import SweepFolder

NAME = "history/00003.arrows"


class Counting(RemoteFolder):
    """Counts what is uploaded to it."""

    uploaded = 0

    def put(self, file: str, data: bytes) -> None:
        self.uploaded += len(data)
        super().put(file, data)


@pytest.fixture
def remote(tmp_path: Path) -> Counting:
    return Counting(f"memory://{tmp_path.name}/sweep")


def fetched(remote: RemoteFolder, target: Path) -> bytes:
    fetch_parts(remote, "history", target)
    return (target / NAME).read_bytes()


def append(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(data)


def test_what_was_appended_is_uploaded_once_however_often_a_file_grew(remote: Counting, tmp_path: Path) -> None:
    path = tmp_path / "here" / NAME
    growing = GrowingFile(path, remote, NAME)
    for _ in range(200):
        append(path, b"x" * 100)
        growing.upload()
        growing.upload()
    assert remote.uploaded < 3 * path.stat().st_size
    assert fetched(remote, tmp_path / "there") == path.read_bytes()


def test_a_file_that_was_written_anew_is_uploaded_anew_and_never_mixed_with_what_it_was(
    remote: Counting, tmp_path: Path
) -> None:
    path = tmp_path / "here" / NAME
    growing = GrowingFile(path, remote, NAME)
    for text in (b"first", b" second"):
        append(path, text)
        growing.upload()
    path.unlink()
    append(path, b"cut")
    growing.upload()
    append(path, b" and more than before")
    growing.upload()
    assert fetched(remote, tmp_path / "there") == b"cut and more than before"
    path.write_bytes(b"in the same place, and longer than it was")
    growing.upload()
    assert fetched(remote, tmp_path / "there") == path.read_bytes()
    path.write_bytes(b"cut and more than before")
    # another process goes on with it
    again = GrowingFile(path, remote, NAME)
    append(path, b"!")
    again.upload()
    assert fetched(remote, tmp_path / "there") == b"cut and more than before!"
    assert len(remote.names(f"{NAME}.parts")) == 1


def test_a_part_that_is_missing_ends_what_is_read(remote: Counting, tmp_path: Path) -> None:
    path = tmp_path / "here" / NAME
    growing = GrowingFile(path, remote, NAME)
    for text in (b"one", b"two", b"three"):
        append(path, text)
        growing.upload()
    remote.delete(f"{NAME}.parts/{remote.names(f'{NAME}.parts')[1]}")
    assert fetched(remote, tmp_path / "there") == b"one"


def test_a_file_that_is_written_anew_while_it_is_read_is_read_whole(remote: Counting, tmp_path: Path) -> None:
    path = tmp_path / "here" / NAME
    growing = GrowingFile(path, remote, NAME)
    for text in (b"one", b"two"):
        append(path, text)
        growing.upload()

    class Overtaken(RemoteFolder):
        begun = False

        def get(self, file: str) -> bytes | None:
            if not self.begun:
                self.begun = True
                path.write_bytes(b"anew")
                growing.upload()
            return super().get(file)

    assert fetched(Overtaken(f"memory://{tmp_path.name}/sweep"), tmp_path / "there") == b"anew"


def test_files_that_an_earlier_version_kept_whole_are_read(remote: Counting, tmp_path: Path) -> None:
    remote.put(NAME, b"old")
    assert fetched(remote, tmp_path / "there") == b"old"
    path = tmp_path / "here" / NAME
    append(path, b"old and new")
    GrowingFile(path, remote, NAME).upload()
    assert fetched(remote, tmp_path / "there") == b"old and new"
    assert remote.size(NAME) is None


def test_a_mirror_leaves_journal_and_histories_where_another_machine_finds_them(
    remote: Counting, tmp_path: Path
) -> None:
    here, there = SweepFolder(tmp_path / "here", remote), SweepFolder(tmp_path / "there", remote)
    here.local.mkdir()
    journal = Journal(here.local / FILE_NAME)
    with Mirror(here) as mirror:
        for step in range(3):
            chunk = history.pack([Row(0, step, step, {"loss": step / 2})])
            history.append(history.path_for(here.local, 0), chunk)
            journal.write("trial", step, config={}, seed=0)
    assert mirror.error is None
    journal.close()
    there.fetch_journal()
    there.fetch_histories()
    assert (there.local / FILE_NAME).read_bytes() == (here.local / FILE_NAME).read_bytes()
    assert history.read(history.path_for(there.local, 0))["metrics.loss"].tolist() == [0.0, 0.5, 1.0]
