"""A trial's files in a storage that is a URI: what counts is there, and nothing of another takes its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from xaytune.messages import Ended, Heartbeat
from xaytune.ray_tune.uploading import upload, upload_rest
from xaytune.records.remote import RemoteFolder
from xaytune.trainer.checkpoint import path_for
from xaytune.trial.common.output import file_of


@pytest.fixture
def remote(tmp_path: Path) -> RemoteFolder:
    return RemoteFolder(f"memory://{tmp_path.name}/sweep")


def written(folder: Path, trial: int, step: int, text: str) -> str:
    file = path_for(folder / "checkpoints" / f"{trial:05d}", step)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file.relative_to(folder).as_posix()


def test_a_paused_trials_own_checkpoint_does_not_replace_the_one_that_it_was_given(
    tmp_path: Path, remote: RemoteFolder
) -> None:
    own = written(tmp_path, 3, 100, "its own")
    upload(Heartbeat(trial=3, global_step=100, checkpoints={100: own}), tmp_path, remote)
    upload_rest(3, tmp_path, remote)
    remote.put(own, b"the donor's")
    last = written(tmp_path, 5, 200, "the last of another")
    (tmp_path / "checkpoints" / "00005" / "mine.txt").write_text("mine")
    upload(Ended(trial=5, global_step=200, checkpoints={200: last}, status="completed"), tmp_path, remote)
    assert remote.get(own) == b"the donor's"
    assert remote.get(last) == b"the last of another"
    assert remote.get("checkpoints/00005/mine.txt") == b"mine"


def test_what_a_trial_left_where_it_was_paused_does_not_replace_what_it_wrote_elsewhere_later(
    tmp_path: Path, remote: RemoteFolder
) -> None:
    for node in ("a", "b"):
        (tmp_path / node / "folders" / "00003").mkdir(parents=True)
        (tmp_path / node / "folders" / "00003" / "log.txt").write_text(node)
    upload_rest(3, tmp_path / "a", remote)
    assert remote.get("folders/00003/log.txt") == b"a"
    upload(Ended(trial=3, global_step=1, status="completed"), tmp_path / "b", remote)
    upload(Ended(trial=5, global_step=1, status="completed"), tmp_path / "a", remote)
    assert remote.get("folders/00003/log.txt") == b"b"


def test_what_a_storage_refused_is_copied_when_it_takes_it_again(tmp_path: Path) -> None:
    folder, stored = tmp_path / "node", tmp_path / "stored"
    (folder / "folders" / "00003").mkdir(parents=True)
    (folder / "folders" / "00003" / "log.txt").write_text("log")
    stored.mkdir()
    (stored / "folders").touch()  # no folder
    with pytest.raises(OSError, match="folders"):
        upload(Ended(trial=3, global_step=1, status="completed"), folder, RemoteFolder(f"file://{stored}"))
    (stored / "folders").unlink()
    upload_rest(3, folder, RemoteFolder(f"file://{stored}"))
    assert (stored / "folders" / "00003" / "log.txt").read_text() == "log"


def test_what_a_trial_printed_on_several_nodes_is_one_output(tmp_path: Path, remote: RemoteFolder) -> None:
    for node, text in [("a", b"one\n"), ("b", b"two\n")]:
        output = tmp_path / node / file_of(4)
        output.parent.mkdir(parents=True)
        output.write_bytes(text)
        upload_rest(4, tmp_path / node, remote)
        upload_rest(4, tmp_path / node, remote)
    assert remote.get(file_of(4)) == b"one\ntwo\n"


def test_a_checkpoint_that_is_discarded_leaves_the_trials_node(tmp_path: Path, remote: RemoteFolder) -> None:
    old, new = written(tmp_path, 0, 1, "old"), written(tmp_path, 0, 2, "new")
    upload(Heartbeat(trial=0, checkpoints={2: new}, discarded={1: old}), tmp_path, remote)
    assert not (tmp_path / old).exists()
    assert (tmp_path / new).exists()
