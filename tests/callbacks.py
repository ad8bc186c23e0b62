"""Callbacks for the sweeps of the tests."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from xaytune.records.journal import FILE_NAME, read_events
from xaytune.trainer.callbacks import EVENTS, TrainState
from xaytune.trial.run.trial import Trial


def notes(sweep_dir: Path, number: int) -> Path:
    return sweep_dir / "notes" / f"{number}.txt"


def note_events(trial: Trial, config: dict[str, Any]) -> None:
    """Writes the name of each event that a trial fires to a file."""
    path = notes(trial.checkpoint_dir.parents[1], trial.number)
    path.parent.mkdir(exist_ok=True)
    for event in EVENTS:

        def note(state: TrainState, event: str = event) -> None:
            with path.open("a") as file:
                file.write(f"{event}\n")

        trial.callbacks.on(event)(note)


def _once(trial: Trial, what: str) -> bool:
    """Whether this is the first time that a trial asks, in whatever process."""
    path = trial.checkpoint_dir.parents[1] / f"{what}-{trial.number}"
    if path.exists():
        return False
    path.touch()
    return True


def _kill_once(trial: Trial, step: int, damage: bool = False) -> None:
    @trial.callbacks.on("step_end")
    def kill(state: TrainState) -> None:
        if state.global_step != step or not _once(trial, "killed"):
            return
        others = trial.checkpoint_dir.parents[1].glob("killed-*")
        if damage and len(list(others)) > 1:
            _, *newer = sorted(trial.checkpoint_dir.glob("*.pt"))
            for path in newer:
                os.truncate(path, path.stat().st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)


def kill_once_at_step_40(trial: Trial, config: dict[str, Any]) -> None:
    """Kills the process of each trial, the first time that it comes to its fortieth step."""
    _kill_once(trial, 40)


def kill_once_and_damage(trial: Trial, config: dict[str, Any]) -> None:
    """The same; of all trials but the first it cuts the checkpoints short, except the oldest."""
    _kill_once(trial, 40, damage=True)


def note_resume(trial: Trial, config: dict[str, Any]) -> None:
    """Writes down where a trial goes on that was begun before."""

    @trial.callbacks.on("train_start")
    def note(state: TrainState) -> None:
        if not _once(trial, "begun"):
            with (trial.checkpoint_dir.parents[1] / "resumed.txt").open("a") as file:
                file.write(f"{state.global_step}\n")


def sleep_a_little(trial: Trial, config: dict[str, Any]) -> None:
    """Makes every step take a while."""
    trial.callbacks.on("step_end")(lambda state: time.sleep(0.1))


def wait_to_be_seen(trial: Trial, config: dict[str, Any]) -> None:
    """Trains on when the test has seen what it looks for: it writes a file then, for the first trial two."""
    awaited = {2: "seen", 5: "seen again"} if trial.number == 0 else {0: "seen"}
    folder = trial.checkpoint_dir.parents[1]

    @trial.callbacks.on("epoch_end")
    def wait(state: TrainState) -> None:
        name = awaited.get(state.epoch)
        while name is not None and not (folder / name).exists():
            time.sleep(0.05)


def sleep_10_ms(trial: Trial, config: dict[str, Any]) -> None:
    """Makes every step take a while, but not as long."""
    trial.callbacks.on("step_end")(lambda state: time.sleep(0.01))


def trains_slowly_until_it_is_resumed(trial: Trial, config: dict[str, Any]) -> None:
    """Leaves whoever stops the sweep the time to do so, in the first attempt after the first checkpoint."""
    first = _once(trial, "slowed")
    trial.callbacks.on("step_end")(lambda state: time.sleep(2 if first and state.global_step > 6 else 0))


def writes_a_file_of_its_own(trial: Trial, config: dict[str, Any]) -> None:
    """Leaves a file beside the checkpoints of its trial."""
    trial.callbacks.on("train_end")(lambda state: (trial.checkpoint_dir / "mine.txt").write_text("mine"))


def wait_for_the_other(trial: Trial, config: dict[str, Any]) -> None:
    """Waits until another of two trials has begun, too."""
    folder = trial.checkpoint_dir.parents[1]
    (folder / f"begun-{trial.number}").touch()
    while not (folder / f"begun-{1 - trial.number}").exists():
        time.sleep(0.05)


def takes_long_after_five_epochs(trial: Trial, config: dict[str, Any]) -> None:
    """Leaves the driver the time to stop the trial, and the trial steps to tell how far it is."""

    def stopped() -> bool:
        events = read_events(trial.checkpoint_dir.parents[1] / FILE_NAME)
        return any(event["event"] == "stop" and event["trial"] == trial.number for event in events)

    @trial.callbacks.on("step_end")
    def wait(state: TrainState) -> None:
        until = time.monotonic() + 2.5
        while state.epoch >= 5 and not stopped() and time.monotonic() < until:
            time.sleep(0.05)
        if state.epoch >= 5:  # the message that stops it is on its way
            time.sleep(0.5)


def later_trials_wait_to_go(trial: Trial, config: dict[str, Any]) -> None:
    """Lets all but the first six trials wait until a file is there."""
    if trial.number >= 6:
        while not (trial.checkpoint_dir.parents[1] / "go").exists():
            time.sleep(0.05)


def break_the_database(trial: Trial, config: dict[str, Any]) -> None:
    """Overwrites the database of MLflow's runs with something else, after the fifth step."""

    @trial.callbacks.on("step_end")
    def overwrite(state: TrainState) -> None:
        if state.global_step == 5:
            Path(os.environ["MLFLOW_TRACKING_URI"].removeprefix("sqlite:///")).write_bytes(b"no database" * 1000)


def break_at_step_5(trial: Trial, config: dict[str, Any]) -> None:
    """Raises after the fifth step."""

    @trial.callbacks.on("step_end")
    def fail(state: TrainState) -> None:
        if state.global_step == 5:
            raise RuntimeError("step 5")
