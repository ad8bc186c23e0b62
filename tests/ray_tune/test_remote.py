"""Sweeps in a storage that is no folder of this machine."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.ray_tune.sweeps import assert_same_sweep, saved_spec, start, wait_for
from xaytune.errors import JournalError
from xaytune.ray_tune.sweep import resume
from xaytune.records.journal import FILE_NAME
from xaytune.records.remote import RemoteFolder
from xaytune.records.results import Results
from xaytune.records.sweep_folder import child_of, find_sweep


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_sweep_in_an_object_store_is_resumed_on_another_machine(
    undisturbed: Results, bucket: str, cache: Path, tmp_path: Path
) -> None:
    spec = saved_spec(tmp_path, "callbacks: [tests.callbacks:writes_a_file_of_its_own]\n")
    process = start(["run", spec], bucket)
    wait_for(child_of(bucket, "saved").local / FILE_NAME, 16, process)
    assert process.poll() is None
    process.kill()
    process.wait()
    shutil.rmtree(cache)  # as on another machine
    resumed = resume("saved", storage=bucket).sweep
    assert (resumed.name, resumed.state) == ("saved", "completed")
    shutil.rmtree(cache)
    results = Results(find_sweep("saved", bucket))
    best = results.best
    assert best is not None
    assert str(best.checkpoint).startswith("s3://bucket/saved/checkpoints/")
    for trial in results.trials:  # to where they can be compared
        for step, uri in trial.checkpoints.items():
            trial.checkpoints[step] = str(cache / f"{trial.number}-{step}.pt")
            assert RemoteFolder(bucket).fetch(uri.removeprefix("s3://bucket/"), Path(trial.checkpoints[step]))
    assert_same_sweep(results, undisturbed)
    for trial in results.trials:
        assert RemoteFolder(bucket).get(f"saved/checkpoints/{trial.number:05d}/mine.txt") == b"mine"


def test_a_storage_that_cannot_be_reached_is_told_in_a_message(cache: Path) -> None:
    with pytest.raises(JournalError, match="the storage cannot be reached: nothing://x"):
        find_sweep("sweep", "nothing://x")
    assert os.environ["XDG_CACHE_HOME"] == str(cache)
