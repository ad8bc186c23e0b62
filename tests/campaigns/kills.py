"""Sweeps whose processes are killed at random moments: nothing is left of what dies, and no decision changes.

One trial hangs in C code the whole sweep long, with the interpreter's lock held, until all others have ended.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import random
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.recipes import saved
from xaytune.records.journal import FILE_NAME, Event, read_events
from xaytune.records.results import Results
from xaytune.trainer.callbacks import TrainState
from xaytune.trial.run.trial import Trial

VICTIMS = ("actor", "template", "trial", "raylet", "driver")
# Without these there is no sweep any more: it is resumed.
_ENDS_THE_SWEEP = ("raylet", "driver")
# Seconds after which nothing may be left, and after which nothing of Ray's own may be.
_LEFT_S, _RAYS_LEFT_S = 10.0, 20.0
_TRIALS = 8
_SHORT = os.environ.get("RAY_TMPDIR", "/tmp")
_MARK = "XAYTUNE_CAMPAIGN"
_SPEC = f"""\
recipe: tests.campaigns.kills:train
metric: eval_accuracy
mode: max
space: {{x: {{loguniform: [0.001, 1]}}}}
search: {{algorithm: tpe, seed: 3, n_startup_trials: 3}}
scheduler: {{algorithm: asha, max_t: 9, reduction_factor: 3}}
num_samples: {_TRIALS}
max_concurrent_trials: 2
resources_per_trial: {{cpu: 0.5}}
failures: {{retries: 1000}}
"""


def train(config: dict[str, Any], trial: Trial) -> TrainState:
    """Trains; the first trial hangs in its first step until there is a writer of the sweep's pipe."""
    if trial.number == 0:
        pipe = str(trial.checkpoint_dir.parents[2] / "pipe").encode()

        @trial.callbacks.on("step_start")
        def hang(state: TrainState) -> None:
            if state.global_step == 0:
                ctypes.PyDLL(None).open(pipe, os.O_RDONLY)

    return saved(config, trial)


class KilledSweep:
    """A sweep in a Ray of its own, some of whose processes are killed.

    Args:
        folder: For all its files; Ray's sockets are there too, so it is to be short.
        patience: How many times as long things may take on this machine.
    """

    def __init__(self, folder: Path, patience: float = 1.0) -> None:
        self._left_s, self._rays_left_s = _LEFT_S * patience, _RAYS_LEFT_S * patience
        self.folder, self._mark = folder / "sweep", secrets.token_hex(8)
        self._scratch, self._journal, self._pipe = folder, self.folder / FILE_NAME, folder / "pipe"
        os.mkfifo(self._pipe)
        self._driver: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> KilledSweep:
        """Leaves no process behind, whatever happens in its context."""
        return self

    def __exit__(self, *exception: object) -> None:
        if self._driver is not None:
            self._driver.kill()
            self._driver.wait()

    def start(self) -> None:
        """Starts the sweep, or resumes it."""
        spec = self._scratch / "spec.yaml"
        spec.write_text(_SPEC)
        command = ["resume", "sweep"] if self._journal.exists() else ["run", str(spec), "--name", "sweep"]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        with (self._scratch / "driver.txt").open("ab") as output:
            self._driver = subprocess.Popen(
                [sys.executable, "-m", "xaytune", *command, "--storage", str(self._scratch)],
                stdout=output,
                stderr=output,
                env={**environment, _MARK: self._mark, "RAY_TMPDIR": str(self._scratch)},
            )

    @property
    def running(self) -> bool:
        """Whether its driver runs."""
        return self._driver is not None and self._driver.poll() is None

    @property
    def events(self) -> list[Event]:
        """What happened so far."""
        return list(read_events(self._journal)) if self._journal.exists() else []

    def wait_for(self, holds: Callable[[], object], seconds: float = 600.0) -> None:
        """Waits until something holds, or the sweep has ended."""
        deadline = time.monotonic() + seconds
        while self.running and not holds():
            assert time.monotonic() < deadline, self.said
            time.sleep(0.02)

    def kill(self, victim: str) -> None:
        """Kills one of its processes, as soon as there is one, and waits until what it takes along is gone."""
        self.wait_for(lambda: self._find(victim))
        found = self._find(victim)
        assert found, f"no {victim} to kill: {self.said}"
        pid, dependents = found
        os.kill(pid, signal.SIGKILL)
        if victim in _ENDS_THE_SWEEP:
            self.wait_until_gone()
        else:
            assert _all_gone([pid, *dependents], self._left_s), f"{dependents} outlive the {victim}"

    def finish(self) -> Results:
        """Lets the trial that hangs train when all others have ended, and waits for the end."""
        self.wait_for(lambda: len([event for event in self.events if event["event"] == "end"]) == _TRIALS - 1)
        writer = os.open(self._pipe, os.O_RDWR)
        assert self._driver is not None
        assert self._driver.wait(600) == 0, self.said
        os.close(writer)
        self.wait_until_gone()
        return Results(self.folder)

    def wait_until_gone(self) -> None:
        """Waits until nothing of the sweep is left.

        Raises:
            AssertionError: Something is, for too long.
        """
        ended = time.monotonic()
        if self._driver is not None:
            self._driver.wait(self._rays_left_s)
        while left := self._processes():
            own = {pid: name for pid, name in left.items() if not _is_rays(name)}
            taken = time.monotonic() - ended
            assert not own or taken < self._left_s, f"after {taken:.0f} s there is {own}"
            assert taken < self._rays_left_s, f"after {taken:.0f} s there is {left}"
            time.sleep(0.05)

    @property
    def said(self) -> str:
        """What its drivers printed."""
        return (self._scratch / "driver.txt").read_text()

    def _find(self, victim: str) -> tuple[int, list[int]] | None:
        """Returns a process to kill, and those that are to end with it."""
        if victim == "driver":
            return (self._driver.pid, []) if self._driver is not None and self.folder.exists() else None
        processes = self._processes()
        trials = [event["pid"] for event in self.events if event["event"] == "start" and event["pid"] in processes]
        if victim == "trial" and trials:
            return trials[-1], []
        if victim == "template" and trials:
            return _parent(trials[-1]), trials
        named = {"raylet": "raylet", "actor": "ray::Trial"}.get(victim)
        found = [pid for pid, name in processes.items() if named is not None and named in name]
        if victim == "actor" and not trials:
            return None
        return (found[0], []) if found else None

    def _processes(self) -> dict[int, str]:
        """Returns the command lines of the sweep's processes."""
        mark = f"{_MARK}={self._mark}".encode()
        found = {}
        for path in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if path.name.isdigit() and mark in (path / "environ").read_bytes():
                    found[int(path.name)] = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        return found


def _is_rays(name: str) -> bool:
    return "ray::Trial" not in name and ("ray::" in name or "site-packages/ray/" in name)


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def _all_gone(pids: list[int], within: float) -> bool:
    deadline = time.monotonic() + within
    while any(_is_there(pid) for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def _is_there(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def run(runs: int, seed: int, patience: float = 1.0) -> None:
    """Kills each kind of process so often.

    Args:
        runs: How often.
        seed: What the order and the moments are drawn from.
        patience: How many times as long things may take on this machine.

    Raises:
        AssertionError: Something outlives what was killed, or a decision is another than without the kills.
    """
    from tests.ray_tune.sweeps import assert_same_sweep

    draw = random.Random(seed)
    with _scratch() as folder:
        with KilledSweep(folder, patience) as undisturbed:
            undisturbed.start()
            results = undisturbed.finish()
        left = [victim for victim in VICTIMS for _ in range(runs)]
        draw.shuffle(left)
        for number in itertools.count():
            if not left:
                return
            with _scratch() as own, KilledSweep(own, patience) as sweep:
                left = left[_disturb(sweep, left, draw) :]
                assert_same_sweep(Results(own / "sweep"), results)
            print(f"sweep {number}: the same; {len(left)} kills to come", flush=True)


def _disturb(sweep: KilledSweep, victims: list[str], draw: random.Random) -> int:
    """Runs a sweep to its end, and kills what it can; returns how many it killed."""
    sweep.start()
    killed = 0
    for victim in victims:
        wanted = len(sweep.events) + draw.randint(1, 6)
        sweep.wait_for(lambda wanted=wanted: len(sweep.events) >= wanted or _nearly_over(sweep))  # type: ignore[misc]
        if _nearly_over(sweep):
            break
        time.sleep(draw.uniform(0, 0.3))
        begun = time.monotonic()
        sweep.kill(victim)
        killed += 1
        print(f"  {victim} killed: all gone after {time.monotonic() - begun:.2f} s", flush=True)
        if victim in _ENDS_THE_SWEEP:
            sweep.start()
    sweep.finish()
    return killed


def _nearly_over(sweep: KilledSweep) -> bool:
    return len([event for event in sweep.events if event["event"] == "end"]) >= _TRIALS - 1


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="k", dir=_SHORT, ignore_cleanup_errors=True) as folder:
        yield Path(folder)
