"""Sweeps that are resumed: what had failed is left as it is, unless it is asked for."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.driver.harness import Played
from xaytune.errors import SpecError, StorageError
from xaytune.messages import Failure
from xaytune.records.journal import FILE_NAME, read_events
from xaytune.records.results import Results
from xaytune.records.resumed_spec import resumed_spec
from xaytune.search.build import method_for
from xaytune.search.method import Action, End
from xaytune.search.replay import replay
from xaytune.search.sampled import SampledMethod
from xaytune.trainer.checkpoint import path_for

RAISED = Failure("error", "KeyError: 'lr'", "Traceback ...")


def fails(sweep: Played, trial: int, epoch: int) -> None:
    sweep.end(trial, epoch, status="failed", reason=RAISED.error, failure=RAISED, metrics={"m": 0.2})


def test_trials_that_failed_resume_from_their_checkpoints_where_that_is_asked_for(tmp_path: Path) -> None:
    sweep = Played(tmp_path, num_samples=3)
    for trial in range(3):
        sweep.start()
        sweep.report(trial, 1, 0.5 + trial / 10, checkpoints={10: f"checkpoints/{trial:05d}/step-10.pt"})
    fails(sweep, 1, 2)
    for trial in (0, 2):
        sweep.end(trial, 9)
    sweep.recorder.finished(*sweep.driver.outcome())
    sweep.close()
    left_alone = Played(tmp_path, num_samples=3)
    assert left_alone.driver.next() is None
    left_alone.close()

    again = Played(tmp_path, num_samples=3, resume_errored=True)
    assignment = again.start()
    assert (assignment.trial, assignment.attempt, assignment.last_judged) == (1, 1, 1)
    assert assignment.checkpoints == (10,)
    again.end(1, 9, attempt=1, metrics={"m": 0.9})
    assert again.driver.next() is None
    again.close()
    results = Results(tmp_path)
    assert [trial.status for trial in results.trials] == ["completed"] * 3


def test_trials_that_others_have_not_waited_for_are_not_resumed(tmp_path: Path) -> None:
    sweep = Played(tmp_path, scheduler={"algorithm": "hyperband", "max_t": 9}, num_samples=3)
    sweep.start()
    fails(sweep, 0, 1)
    sweep.close()
    before = (tmp_path / FILE_NAME).read_bytes()
    with pytest.raises(SpecError, match="scheduler: its trials have not waited for those that failed"):
        Played(tmp_path, scheduler={"algorithm": "hyperband", "max_t": 9}, num_samples=3, resume_errored=True)
    assert (tmp_path / FILE_NAME).read_bytes() == before


def test_trials_that_failed_are_not_resumed_with_a_budget_that_is_spent(tmp_path: Path) -> None:
    sweep = Played(tmp_path, num_samples=3, budget={"epochs": 2})
    sweep.start()
    fails(sweep, 0, 2)
    sweep.close()
    before = (tmp_path / FILE_NAME).read_bytes()
    with pytest.raises(SpecError, match="budget: is spent: trials that failed can be resumed with a larger one"):
        Played(tmp_path, num_samples=3, budget={"epochs": 2}, resume_errored=True)
    assert (tmp_path / FILE_NAME).read_bytes() == before


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resources_per_trial.cpu", "there is nothing to set 'cpu' in"),
        ("resources_per_trial.1.cpu", "there is nothing to set '1.cpu' in"),
        ("seed", "seed: cannot be changed any more"),
    ],
)
def test_an_option_that_a_resume_cannot_set_is_refused(tmp_path: Path, name: str, message: str) -> None:
    sweep = Played(tmp_path, resources_per_trial=[{"cpu": 1}, {"cpu": 2}])
    with pytest.raises(SpecError, match=message):
        resumed_spec(sweep.driver.state, {name: 4})
    sweep.close()


def test_options_that_the_journal_of_an_earlier_version_lacks_can_be_set(tmp_path: Path) -> None:
    sweep = Played(tmp_path)
    del sweep.driver.state.spec["failures"]
    assert resumed_spec(sweep.driver.state, {"failures.retries": 4, "budget.epochs": 9}).failures.retries == 4
    sweep.close()


def test_a_donor_checkpoint_that_cannot_be_deleted_is_told_as_the_storages_fault_and_the_sweep_is_not_over(
    tmp_path: Path,
) -> None:
    sweep = Played(tmp_path)
    sweep.start()
    saved = path_for(tmp_path / "checkpoints" / "00000", 10)
    saved.parent.mkdir(parents=True)
    saved.write_text("saved")
    sweep.report(0, 1, 0.5, checkpoints={10: saved.relative_to(tmp_path).as_posix()})
    sweep.recorder.donated(0)
    shutil.rmtree(tmp_path / "sources")
    (tmp_path / "sources").touch()  # no folder any more: nothing in it can be deleted
    with pytest.raises(StorageError, match="Not a directory"):
        sweep.recorder.finished("completed", None)
    sweep.close()
    assert Results(tmp_path).sweep.state != "completed"


def test_a_trial_that_was_out_of_memory_once_is_worth_what_it_reached_then(tmp_path: Path) -> None:
    told: list[str] = []

    class Seen(SampledMethod):
        def on_end(self, trial: int, end: End) -> Sequence[Action]:
            told.append(end.status)
            return super().on_end(trial, end)

    sweep = Played(tmp_path, num_samples=1)
    sweep.start()
    lacking = Failure("infeasible", "out of memory")
    sweep.end(0, 1, status="failed", reason="out of memory", failure=lacking, metrics={})
    sweep.close()
    again = Played(tmp_path, num_samples=1, resume_errored=True)
    again.start()
    again.end(0, 9, attempt=1)
    again.close()
    method = method_for(again.spec)
    method.__class__ = Seen
    replay(method, read_events(tmp_path / FILE_NAME), "m")
    assert told == ["completed"]
