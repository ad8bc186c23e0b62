"""Faults, made for real: nothing that was finished is done again, and no decision changes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.campaigns import kills
from tests.conftest import Run
from tests.ray_tune.sweeps import (
    SAVED,
    assert_same,
    assert_same_sweep,
    decisions,
    events_of,
    fired,
    last_checkpoint,
    saved_spec,
    start,
    wait_for,
)
from xaytune.interrupts import Interrupts
from xaytune.ray_tune.sweep import resume
from xaytune.records.journal import FILE_NAME
from xaytune.records.results import Results

SLOW: dict[str, Any] = {"metric": "eval_accuracy", "space": {"x": {"loguniform": [1e-3, 1]}}}


@pytest.fixture(scope="module")
def killed(run_in: Run) -> Results:
    """The undisturbed sweep, but that its processes are killed, and checkpoints of some trials damaged."""
    return run_in("saved", num_samples=12, **{**SAVED, "callbacks": ["tests.callbacks:kill_once_and_damage"]})


def test_a_trial_whose_process_is_killed_goes_on_and_ends_with_the_same_bits(
    killed: Results, undisturbed: Results
) -> None:
    assert_same_sweep(killed, undisturbed)
    lost = [trial for trial in killed.trials if trial.attempts == 2]
    assert lost
    for trial in lost:
        failure = next(e for e in events_of(killed) if e["event"] == "failure" and e["trial"] == trial.number)
        assert (failure["kind"], failure["retried"]) == ("lost", True)
        assert killed.history(trial.number)["global_step"].tolist() == list(range(1, trial.global_step + 1))


def test_a_damaged_checkpoint_is_noticed_and_the_one_before_it_is_used(
    killed: Results, undisturbed: Results
) -> None:
    first, *others = [trial.number for trial in killed.trials if trial.attempts == 2]
    damaged = {event["trial"] for event in events_of(killed) if event["event"] == "damaged"}
    assert damaged == set(others)
    assert damaged
    assert first not in damaged
    assert_same_sweep(killed, undisturbed)


def test_a_checkpoint_is_recorded_without_waiting_for_a_heartbeat(run: Run) -> None:
    """A process that is killed goes on from what it wrote until about a second before."""
    results = run(
        "saved", callbacks=["tests.callbacks:kill_once_at_step_40", "tests.callbacks:sleep_a_little"], **SLOW
    )
    (trial,) = results.trials
    events = [event for event in events_of(results) if event["event"] in ("checkpoint", "failure")]
    before = events[: [event["event"] for event in events].index("failure")]
    steps = [event["global_step"] for event in before]
    assert steps == [6, 12, 18, 24, 30, 36][: len(steps)]
    assert len(steps) >= 4
    assert trial.attempts == 2
    assert trial.status == "completed"


def test_whatever_process_is_killed_nothing_is_left_of_it_and_the_sweep_ends_the_same() -> None:
    kills.run(runs=1, seed=2, patience=6)


def test_a_sweep_that_was_interrupted_goes_on_as_if_it_had_not_been(undisturbed: Results, tmp_path: Path) -> None:
    journal = tmp_path / "saved" / FILE_NAME
    process = start(["run", saved_spec(tmp_path)], tmp_path)
    wait_for(journal, 9, process)
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    assert Results(tmp_path / "saved").sweep.state == "interrupted"
    results = resume("saved", storage=tmp_path)
    fresh = [event for event in decisions(results) if event.get("status") != "paused"]
    assert fresh == decisions(undisturbed)
    for trial in undisturbed.trials:
        pd.testing.assert_frame_equal(results.history(trial.number), undisturbed.history(trial.number))
        assert_same(last_checkpoint(results, trial.number), last_checkpoint(undisturbed, trial.number))


def test_a_terminal_that_is_lost_pauses_the_sweep_however_often_that_is_told_unless_it_is_ignored() -> None:
    with Interrupts() as interrupts:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGHUP)
        assert interrupts.asked
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as under nohup
    try:
        with Interrupts() as interrupts:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not interrupts.asked
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_second_ctrl_c_ends_the_sweep_at_once(ray_here: None, tmp_path: Path) -> None:
    spec = tmp_path / "ignores.yaml"
    spec.write_text(
        "recipe: tests.recipes:swallows_everything\nmetric: score\nmode: max\nspace: {x: {uniform: [0, 0.5]}}\n"
    )
    process = start(["run", str(spec)], tmp_path)
    wait_for(tmp_path / "ignores" / FILE_NAME, 3, process)
    process.send_signal(signal.SIGINT)
    wait_for(tmp_path / "ignores" / FILE_NAME, 4, process)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == 130
    sweep = Results(tmp_path / "ignores").sweep
    assert (sweep.state, sweep.counts()["paused"]) == ("interrupted", 1)


def test_a_budget_of_epochs_ends_the_sweep_through_the_loops_of_its_trials(run: Run) -> None:
    callbacks = ["tests.callbacks:note_events", "tests.callbacks:takes_long_after_five_epochs"]
    results = run("curve", num_samples=50, budget={"epochs": 8}, callbacks=callbacks)
    assert (results.sweep.state, results.sweep.reason) == ("completed", "the budget of 8 epochs is spent")
    assert 8 <= results.sweep.epochs < 18
    for trial in results.trials:
        if trial.attempts:
            assert fired(results, trial.number)[-2:] == ["checkpoint_saved", "train_end"]
    stopped = [trial for trial in results.trials if trial.status == "stopped"]
    assert {trial.reason for trial in stopped} == {"the budget of 8 epochs is spent"}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with little room."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("mounting a tmpfs needs to be root")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_ends_the_sweep_with_what_to_do_and_it_goes_on_when_there_is_room(
    undisturbed: Results, small_disk: Path, tmp_path: Path
) -> None:
    process = start(["run", saved_spec(tmp_path)], small_disk)
    wait_for(small_disk / "saved" / FILE_NAME, 12, process)
    with contextlib.suppress(OSError), (small_disk / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 100)
    output = process.communicate(timeout=60)[0].decode()
    assert process.returncode == 1
    assert "saved cannot be written: " in output
    assert "No space left on device" in output
    assert "Traceback" not in output
    (small_disk / "filler").unlink()
    results = resume("saved", storage=small_disk)
    assert [e for e in decisions(results) if e.get("status") != "paused"] == decisions(undisturbed)


def test_the_trials_of_a_lost_node_go_on_elsewhere_from_their_checkpoints(
    tmp_path: Path, ray_folder: Path
) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    subprocess.run(
        [sys.executable, "-m", "tests.ray_tune.losing_nodes", str(tmp_path)],
        check=True,
        env={**environment, "RAY_TMPDIR": str(ray_folder)},
    )
    results = Results(tmp_path / "saved")
    assert results.sweep.state == "completed"
    assert [trial.status for trial in results.trials] == ["completed"] * 2
    failures = [event for event in events_of(results) if event["event"] == "failure"]
    assert [event["kind"] for event in failures] == ["preempted", "node_lost"]
    assert sum(trial.attempts for trial in results.trials) == 4
    for trial in results.trials:
        assert results.history(trial.number)["global_step"].tolist() == list(range(1, 55))
    resumed = (results.path / "resumed.txt").read_text().split()
    assert len(resumed) == 2
    assert "0" not in resumed


def test_the_disk_holds_the_best_checkpoints_and_what_other_trials_need(run: Run) -> None:
    options: dict[str, Any] = {**SAVED, "max_concurrent_trials": 2, "checkpoint_config": {"num_to_keep": 3}}
    results = run("saved", num_samples=12, **options)
    ranked = sorted(results.trials, key=lambda trial: (-(trial.value or 0), trial.number))
    kept = {path for path in (results.path / "checkpoints").rglob("*") if path.is_file()}
    assert kept == {Path(str(trial.checkpoint)) for trial in ranked[:3]}
    assert all(not trial.checkpoints for trial in ranked[3:])
