"""What an attempt of a trial finds in the folder of its checkpoints."""

from __future__ import annotations

from pathlib import Path

from tests.models import checkpoints
from tests.trial.reported_loop import Loop
from xaytune.messages import Assignment
from xaytune.trainer import checkpoint, checkpoint_files
from xaytune.trainer.checkpoint_files import list_checkpoints
from xaytune.trial.run.resumable_checkpoints import checkpoint_dir_of, settle_checkpoints


def test_what_is_left_of_a_save_that_was_killed_is_deleted_when_the_trial_goes_on(tmp_path: Path) -> None:
    task, assignment = Loop("epoch", (), tmp_path).task, Assignment(trial=0, seed=0, config={}, checkpoints=(1,))
    folder = checkpoint_dir_of(task, assignment)
    path = checkpoint.path_for(folder, 1)
    checkpoint.save({}, path)
    (folder / ".step-00000002.pt.77.tmp").write_bytes(b"half of it")
    (folder / ".step-00000003.77.tmp").mkdir()
    assert settle_checkpoints(task, assignment) == {}
    assert checkpoints(folder) == [path.name]


def test_a_checkpoint_that_is_damaged_again_leaves_the_one_before_it(tmp_path: Path) -> None:
    task = Loop("epoch", (), tmp_path).task
    assignment = Assignment(trial=0, seed=0, config={}, checkpoints=(4, 8))
    folder = checkpoint_dir_of(task, assignment)
    for attempt in range(2):
        for step in (4, 8):
            written = tmp_path / f"{attempt}-{step}"
            written.mkdir()
            (written / "weights").write_text("1")
            path = checkpoint_files.add_folder(written, folder, step)
        (path / "weights").write_text("2")
        assert settle_checkpoints(task, assignment) == {8: "checkpoints/00000/step-00000008"}
        assert [path.name for path in list_checkpoints(folder)] == ["step-00000004"]
