"""Checkpoints, files or folders, here or in an object store, are listed, copied and deleted alike."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import pytest

from xaytune.errors import CheckpointError
from xaytune.records.checkpoint_store import CheckpointStore
from xaytune.records.remote import RemoteFolder
from xaytune.records.retention import Retention
from xaytune.records.sweep_folder import SweepFolder
from xaytune.records.trial_record import TrialRecord
from xaytune.sweep.objective import Objective
from xaytune.trainer import checkpoint_files


@pytest.fixture(params=["here", "memory", pytest.param("s3", marks=pytest.mark.slow)])
def sweep_folder(request: pytest.FixtureRequest, tmp_path: Path) -> SweepFolder:
    if request.param == "here":
        return SweepFolder(tmp_path / "sweep")
    if request.param == "memory":
        return SweepFolder(tmp_path / "sweep", RemoteFolder(f"memory://{tmp_path.name}/sweep"))
    storage = RemoteFolder(request.getfixturevalue("bucket"))
    return SweepFolder(tmp_path / "sweep", storage.child(tmp_path.name))


def make(folder: Path, step: int, kind: str) -> Path:
    """A checkpoint as a trial writes it."""
    if kind == "file":
        path = folder / f"step-{step:08d}.pt"
        folder.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("data", "x" * 1000)
        return path
    path = folder / f"step-{step:08d}"
    (path / "shards").mkdir(parents=True)
    (path / "model.bin").write_bytes(b"y" * 3_000_000)
    (path / "shards" / "0").write_bytes(b"z")
    checkpoint_files.seal(path)
    return path


def put(sweep_folder: SweepFolder, trial: int, step: int, kind: str) -> str:
    """Saves a checkpoint of a trial, and returns its path within the sweep."""
    made = make(sweep_folder.local / f"checkpoints/{trial:05d}", step, kind)
    path = made.relative_to(sweep_folder.local).as_posix()
    if sweep_folder.remote is not None:
        sweep_folder.remote.upload(made, path)
        checkpoint_files.delete(made)
    return path


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_donor_checkpoint_is_a_copy_that_outlives_its_trials_and_goes_on_to_another(
    sweep_folder: SweepFolder, kind: str
) -> None:
    store = CheckpointStore(sweep_folder)
    path = put(sweep_folder, 3, 20, kind)
    donor = store.keep(path, 3)
    store.delete(path)
    assert store.list(3) == {}
    copied = store.hand_over(donor, 5)
    assert store.list(5) == {20: copied}
    store.delete(donor)
    if sweep_folder.remote is not None:
        assert sweep_folder.remote.fetch(copied, sweep_folder.local / copied)
    checkpoint_files.verify(sweep_folder.local / copied)


def test_checkpoints_of_a_trial_are_listed_by_step_whatever_they_are(sweep_folder: SweepFolder) -> None:
    store = CheckpointStore(sweep_folder)
    paths = {
        30: put(sweep_folder, 0, 30, "folder"),
        7: put(sweep_folder, 0, 7, "file"),
        9: put(sweep_folder, 0, 9, "file"),
    }
    put(sweep_folder, 1, 8, "file")
    assert store.list(0) == {step: paths[step] for step in (7, 9, 30)}
    assert list(store.list(0)) == [7, 9, 30]
    assert store.list(4) == {}


@pytest.mark.parametrize("name", ["step-00000001.pt", "step-00000001"])
def test_a_copy_of_a_checkpoint_that_is_missing_raises_and_writes_nothing(
    sweep_folder: SweepFolder, name: str
) -> None:
    store = CheckpointStore(sweep_folder)
    for copy in (store.keep, store.hand_over):
        with pytest.raises(CheckpointError, match=f"checkpoints/00000/{name}: there is no such checkpoint"):
            copy(f"checkpoints/00000/{name}", 2)
    assert store.list(2) == {}
    store.delete(f"checkpoints/00000/{name}")


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: (path / "model.bin").write_bytes(b"y" * 2_999_999 + b"!"),
        lambda path: (path / "model.bin").write_bytes(b"y" * 10),
        lambda path: (path / "shards" / "0").unlink(),
        lambda path: (path / checkpoint_files.MANIFEST).unlink(),
        lambda path: (path / checkpoint_files.MANIFEST).write_text("{"),
        lambda path: (path / checkpoint_files.MANIFEST).write_text("[]"),
        shutil.rmtree,
    ],
)
def test_a_folder_that_is_not_whole_is_noticed(tmp_path: Path, damage: object) -> None:
    path = make(tmp_path, 1, "folder")
    checkpoint_files.verify(path)
    assert callable(damage)
    damage(path)
    with pytest.raises(CheckpointError, match="step-00000001"):
        checkpoint_files.verify(path)


def test_a_file_that_is_not_whole_is_noticed(tmp_path: Path) -> None:
    path = make(tmp_path, 1, "file")
    checkpoint_files.verify(path)
    data = bytearray(path.read_bytes())
    data[500] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoint_files.verify(path)
    path.write_bytes(data[:300])
    with pytest.raises(CheckpointError, match="cannot be read"):
        checkpoint_files.verify(path)


def test_a_name_that_is_no_checkpoints_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="a checkpoint is called step-00000123"):
        checkpoint_files.step_of(tmp_path / "last.ckpt")


def test_a_trial_that_failed_keeps_the_checkpoint_that_it_can_be_resumed_from() -> None:
    trial = TrialRecord(0, {}, 0, status="failed", checkpoints={10: "10.pt", 20: "20.pt"})
    superfluous = Retention(1, Objective("score", "max")).superfluous(trial)
    assert [step for _, step in superfluous] == [10]
