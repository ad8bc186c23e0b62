"""The recorder: writes what happens to the journal and the histories, and keeps the state that follows."""

from __future__ import annotations

import dataclasses
import os
import secrets
import socket
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import Any

from xaytune.driver.retention import Retention
from xaytune.records import history
from xaytune.records.journal import FILE_NAME, Event, Journal, read_events
from xaytune.records.place import Place
from xaytune.records.state import Best, SweepState
from xaytune.sweep.errors import Problem, SpecError
from xaytune.sweep.spec import SweepSpec, reference_name
from xaytune.trial.messages import Assignment, Failure, Report, StopRequest, Verdict

__all__ = ["Listener", "Recorder"]

# How far a trial is stands in the journal so often, for who watches from elsewhere.
_PROGRESS_S = 10.0

Listener = Callable[[SweepState, Event], None]


class Recorder:
    """Records a sweep, a new one or one that goes on.

    Args:
        place: The sweep's.
        spec: The sweep.
        listener: Called with the state and each event that was written.

    Attributes:
        state: What follows from all that was recorded.
        sweep_id: What tells the sweep from all others, also of its name.

    Raises:
        JournalError: The sweep is running, or its journal is damaged.
    """

    def __init__(self, place: Place, spec: SweepSpec, listener: Listener | None = None) -> None:
        self.place, self._folder, self._spec = place, place.folder, spec
        self._maximize = spec.mode == "max"
        self._journal = Journal(place.folder / FILE_NAME)
        self.state = SweepState(str(place), self.events())
        self.sweep_id = self.state.id or secrets.token_hex(4)
        self._listener = listener
        self._retention = Retention(spec.checkpoint_config.num_to_keep, maximize=self._maximize)
        self._best_before: dict[int, Best | None] = {}  # of attempts that went on from a checkpoint
        self._quiet_until: defaultdict[int, float] = defaultdict(float)  # until then no progress is recorded

    def events(self) -> Iterator[Event]:
        """Yields what was recorded so far, oldest first."""
        return read_events(self._folder / FILE_NAME)

    def begun(self) -> None:
        """Records that the sweep has begun, or goes on."""
        spec = self._spec
        self._write(
            "sweep",
            state="running",
            id=self.sweep_id,
            name=self._folder.name,
            spec=spec.plain(),
            num_trials=spec.num_trials,
            folder=os.getcwd(),
            host=socket.gethostname(),
            pid=os.getpid(),
        )
        for trial in sorted(self.state.trials.values(), key=lambda trial: trial.ended or 0.0):
            self._retain(trial.number)

    def reopen_stillborn(self) -> None:
        """Lets trials that raised before any had trained a step be begun again: the recipe was at fault."""
        if not self.state.trained:
            for trial in self.state.trials.values():
                if trial.failure == "error":
                    self._write("reopen", trial.number)

    def finished(self, state: str, reason: str | None) -> None:
        """Records how the sweep ended."""
        self._write("sweep", state=state, reason=reason)
        if state == "completed":
            for trial in self.state.trials.values():
                if trial.offer is not None:
                    self.place.delete(trial.offer)

    def abandoned(self, reason: str) -> None:
        """Records that the trials that run were not waited for."""
        for trial in list(self.state.trials.values()):
            if trial.status == "running":
                self._write("pause", trial.number, reason=reason)

    def suggested(self, assignment: Assignment) -> None:
        """Records a new trial."""
        self._write("trial", assignment.number, config=assignment.config, seed=assignment.seed)

    def started(self, number: int, attempt: int, node: str, pid: int) -> None:
        """Records that a trial trains in a process; once an attempt."""
        if self.state.trials[number].attempts <= attempt:
            self._write("start", number, attempt=attempt, node=node, pid=pid)

    def reported(self, number: int, report: Report) -> None:
        """Records what a trial trained and wrote; not yet what it was worth, nor how it ended."""
        path = history.path_for(self._folder, number)
        if report.begins_at is not None and path.exists():
            history.cut(path, after=report.begins_at)
            self._best_before[number] = history.best(path, self._spec.metric, self._maximize)
        if report.history is not None:
            history.append(path, report.history)
        report.best = self._best(number, report.best)
        for global_step, damaged in report.damaged.items():
            self._write("damaged", number, path=damaged, global_step=global_step)
        if report.kind not in ("decision", "end"):
            self.saved(number, report)
        if report.kind == "heartbeat" and report.global_step > 0:
            self._progressed(number, report)

    def _progressed(self, number: int, report: Report) -> None:
        """Takes in how far a trial is, and records it from time to time."""
        if time.monotonic() < self._quiet_until[number]:
            self.state.progress(number, report.epoch, report.global_step, report.metrics, report.best)
            return
        self._quiet_until[number] = time.monotonic() + _PROGRESS_S
        self._write("progress", number, **_position(report))

    def saved(self, number: int, report: Report) -> None:
        """Records the checkpoints of a report."""
        for global_step, written in report.checkpoints.items():
            self._write("checkpoint", number, path=written, global_step=global_step)
        self._clear(number, report)

    def judged(self, number: int, report: Report) -> None:
        """Records what a trial was worth at a decision point, before the scheduler judges it."""
        value = report.metrics.get(self._spec.metric)
        # In one line with the checkpoints: a trial that resumes from one is not judged there again.
        place = {**_position(report), "checkpoints": report.checkpoints}
        self._write("result", number, due=report.due, value=value, **place)
        self._clear(number, report)

    def decided(self, number: int, verdict: Verdict) -> None:
        """Records the verdict on what was judged last."""
        judged = self.state.trials[number].results[-1]
        self._write(
            "verdict",
            number,
            epoch=judged["epoch"],
            global_step=judged["global_step"],
            value=judged["value"],
            decision=verdict.decision,
            reason=verdict.reason,
            cutoff=verdict.cutoff,
            compared=verdict.compared,
        )

    def paused(self, number: int, reason: str) -> None:
        """Records that the scheduler pauses a trial."""
        self._write("pause", number, reason=reason)

    def offered(self, number: int) -> None:
        """Keeps the newest checkpoint of a trial for others to take over."""
        trial = self.state.trials[number]
        if not trial.checkpoints:
            return
        before, step = trial.offer, max(trial.checkpoints)
        file = f"sources/{number:05d}/step-{step:08d}.pt"
        self.place.copy(self._within(trial.checkpoints[step]), file)
        self._write("offer", number, path=file, global_step=step)
        if before is not None and before != file:
            self.place.delete(before)

    def exploited(self, number: int, source: int, config: dict[str, Any]) -> None:
        """Records that a trial takes over the checkpoint of another, with a configuration of its own."""
        offer = self.state.trials[source].offer
        if offer is None:
            message = (
                "wrote no checkpoint for others to take over: use a Trainer, or save one before each epoch_end"
            )
            raise SpecError([Problem(("recipe",), f"{reference_name(self._spec.recipe)} {message}")])
        name = PurePosixPath(offer).name
        file = f"checkpoints/{number:05d}/{name}"
        self.place.copy(offer, file)
        step = int(name.removeprefix("step-").removesuffix(".pt"))
        self._write("exploit", number, source=source, config=config, path=file, global_step=step)

    def stop_requested(self, number: int, request: StopRequest) -> None:
        """Records that a trial was told to stop; once, also where its next attempt is told again."""
        trial = self.state.trials[number]
        if (trial.stop_reason, trial.stop_status) != (request.reason, request.status):
            self._write("stop", number, reason=request.reason, status=request.status)

    def failed(self, number: int, kind: Failure, error: str, traceback: str, *, retried: bool) -> None:
        """Records that an attempt failed."""
        self._write("failure", number, kind=kind, error=error, traceback=traceback, retried=retried)

    def ended(self, number: int, report: Report) -> None:
        """Records how a trial ended; one that pauses has not."""
        # In one line with the end: a trial that resumes from its last checkpoint has an end to come.
        place = {"reason": report.reason, **_position(report), "checkpoints": report.checkpoints}
        if report.status == "paused":
            self._write("pause", number, **place)
            self._clear(number, report)
            return
        if report.failure is not None:
            self.failed(number, report.failure, str(report.reason), report.error or "", retried=False)
        value = report.best.value if report.best is not None else None
        self._write("end", number, status=report.status, value=value, due=report.due, **place)
        self._best_before.pop(number, None)
        self._quiet_until.pop(number, None)
        self._clear(number, report)

    def close(self) -> None:
        """Closes the journal."""
        self._journal.close()

    def _best(self, number: int, best: Best | None) -> Best | None:
        """The better of an attempt's best and what the attempts before it reached."""
        before = self._best_before.get(number)
        if before is None or best is None:
            return best or before
        better = best.value > before.value if self._maximize else best.value < before.value
        return best if better else before

    def _clear(self, number: int, report: Report) -> None:
        """Deletes what is no longer needed, now that the checkpoints of a report are recorded."""
        for global_step, discarded in report.discarded.items():
            self._delete(number, global_step, discarded)
        if report.checkpoints or self.state.trials[number].finished:
            self._retain(number)

    def _retain(self, number: int) -> None:
        for trial, step in self._retention.superfluous(self.state.trials[number]):
            self._delete(trial.number, step, self._within(trial.checkpoints[step]))

    def _within(self, checkpoint: str) -> str:
        return checkpoint.removeprefix(f"{self.place}/")

    def _delete(self, number: int, global_step: int, file: str) -> None:
        self._write("deleted", number, path=file, global_step=global_step)
        self.place.delete(file)

    def _write(self, event: str, trial: int | None = None, **fields: Any) -> None:
        entry = self._journal.write(event, trial, **fields)
        self.state.apply(entry)
        if self._listener is not None:
            self._listener(self.state, entry)


def _position(report: Report) -> dict[str, Any]:
    best = dataclasses.asdict(report.best) if report.best is not None else None
    return {
        "epoch": report.epoch,
        "global_step": report.global_step,
        "metrics": report.metrics,
        "best": best,
    }
