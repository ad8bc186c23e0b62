"""The recorder: writes what happens to the journal and the histories, and keeps the state that follows."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import secrets
import socket
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

from xaytune.driver.failures import no_checkpoint
from xaytune.errors import StorageError
from xaytune.messages import (
    Assignment,
    DecisionDue,
    Ended,
    Failure,
    Heartbeat,
    Progress,
    Started,
    StopRequest,
)
from xaytune.records import history
from xaytune.records.checkpoint_store import CheckpointStore
from xaytune.records.clock import Clock
from xaytune.records.journal import FILE_NAME, Event, Journal, KnownEvents
from xaytune.records.retention import Retention
from xaytune.records.state import SweepState
from xaytune.records.sweep_folder import SweepFolder
from xaytune.records.trial_record import Best
from xaytune.search.method import Decision, Exploit
from xaytune.sweep.spec import SweepSpec
from xaytune.trainer.checkpoint_files import step_of

# Seconds between two records of how far a trial is, for who watches from elsewhere: at least, as a share of the
# time that the sweep has run, and at most.
_PROGRESS_S, _PROGRESS_SHARE, _MOST_PROGRESS_S = 2.0, 1 / 60, 10.0

Listener = Callable[[SweepState, Event], None]


class Recorder:
    """Records a sweep, a new one or one that is resumed.

    Args:
        sweep_folder: The sweep's.
        spec: The sweep.
        clock: Tells the time.
        listener: Called with the state and each event that was written.
        known: The events of the sweep's journal, where it was read before.
        saves: Whether trials write checkpoints, as all but simulated ones do.

    Attributes:
        state: What follows from all that was recorded.
        sweep_id: What tells the sweep from all others, also of its name.

    Raises:
        JournalError: The sweep is running, or its journal is damaged.

    All of its methods raise :class:`~xaytune.errors.StorageError` where the sweep's folder cannot be written.
    """

    def __init__(
        self,
        sweep_folder: SweepFolder,
        spec: SweepSpec,
        clock: Clock,
        listener: Listener | None = None,
        known: KnownEvents | None = None,
        *,
        saves: bool = True,
    ) -> None:
        self.sweep_folder, self._spec, self._clock = sweep_folder, spec, clock
        self._objective = spec.objective
        self._checkpoints = CheckpointStore(sweep_folder)
        with self._storing():
            self._journal = Journal(sweep_folder.local / FILE_NAME, clock)
        self._known = known or KnownEvents(sweep_folder.local / FILE_NAME)
        self.state = SweepState(str(sweep_folder), self.events(), sweep_folder.address)
        self.sweep_id = self.state.id or secrets.token_hex(4)
        self._saves = saves
        self._listener = listener
        self._retention = Retention(spec.checkpoint_config.num_to_keep, self._objective)
        self._notes: set[str] = set()  # what was noted already
        self._best_before: dict[int, Best | None] = {}  # of attempts that resumed from a checkpoint
        self._quiet_until: defaultdict[int, float] = defaultdict(float)  # until then no progress is recorded

    def events(self) -> Iterator[Event]:
        """Yields what was recorded so far, oldest first."""
        return iter(self._known.all())

    def begun(self) -> None:
        """Records that the sweep has begun, or is resumed."""
        self._known.forget()
        spec: dict[str, Any] = {"spec": self._spec.plain(), "num_trials": self._spec.num_trials}
        where: dict[str, Any] = {"folder": os.getcwd(), "host": socket.gethostname(), "pid": os.getpid()}
        self._write("sweep", state="running", id=self.sweep_id, name=self.sweep_folder.name, **spec, **where)
        for trial in sorted(self.state.trials.values(), key=lambda trial: trial.ended or 0.0):
            self._retain(trial.number)

    def reopened(self, trial: int) -> None:
        """Records that a trial is restarted, though it failed: that was no fault of its configuration."""
        self._write("reopen", trial)

    def finished(self, state: str, reason: str | None) -> None:
        """Records how the sweep ended; of one that is completed, nobody will resume from a donor checkpoint."""
        if state == "completed":
            donors = (trial.donor_checkpoint for trial in self.state.trials.values())
            with self._storing():
                for checkpoint in filter(None, donors):
                    self._checkpoints.delete(checkpoint)
        self._write("sweep", state=state, reason=reason)

    def abandoned(self, reason: str) -> None:
        """Records that the trials that run were not waited for."""
        for trial in list(self.state.trials.values()):
            if trial.status == "running":
                self._write("pause", trial.number, reason=reason)

    def new_trial(self, assignment: Assignment, reason: str | None) -> None:
        """Records a new trial, and why it has this configuration where there is something to say."""
        why = {} if reason is None else {"reason": reason}
        self._write("trial", assignment.trial, config=assignment.config, seed=assignment.seed, **why)

    def fell_back(self, reason: str) -> None:
        """Records that the search method was asked to decide by cheaper means."""
        self._write("fall_back", reason=reason)

    def set_max_t(self, max_t: int) -> None:
        """Records how many epochs or steps trials train, as the first one reported it."""
        self._write("max_t", max_t=max_t)

    def noted(self, *texts: str) -> None:
        """Records what whoever runs the sweep should know, each once."""
        for text in texts:
            if text not in self._notes:
                self._notes.add(text)
                self._write("note", text=text)

    def started(self, message: Started) -> None:
        """Records that a trial trains in a process, once an attempt."""
        self.noted(*message.notes)
        if self.state.trials[message.trial].attempts <= message.attempt:
            self._write("start", message.trial, attempt=message.attempt, node=message.node, pid=message.pid)

    def reported(self, message: Progress) -> None:
        """Records what a trial trained and wrote; not yet what it was worth, nor how it ended."""
        number = message.trial
        self.noted(*message.notes)
        if message.resumed_at is not None or message.history is not None:
            with self._storing():
                self._keep_history(message)
        for global_step, damaged in message.damaged.items():
            self._write("damaged", number, path=damaged, global_step=global_step)
        if isinstance(message, Heartbeat):
            self.saved(message)
            if message.global_step > 0:
                self._progressed(message)

    def _keep_history(self, message: Progress) -> None:
        path = history.path_for(self.sweep_folder.local, message.trial)
        if message.resumed_at is not None:
            history.cut(path, after=message.resumed_at)
            before = self._best_until(message.trial, message.resumed_at) if message.resumed_at > 0 else None
            self._best_before[message.trial] = before
        if message.history is not None:
            history.append(path, message.history)

    def _best_until(self, number: int, global_step: int) -> Best | None:
        """The best that a trial reached up to a step: by its history, or the journal where that has lost rows."""
        best = history.best(history.path_for(self.sweep_folder.local, number), self._objective)
        known = self.state.trials[number].best
        if known is None or known.global_step > global_step:
            return best
        return known if best is None or self._objective.is_better(known.value, best.value) else best

    def _progressed(self, message: Heartbeat) -> None:
        """Takes in how far a trial is, and records it from time to time."""
        now = self._clock.monotonic()
        if now < self._quiet_until[message.trial] or not self._saves:  # nobody watches a simulation
            self.state.progress(
                message.trial, message.epoch, message.global_step, dict(message.metrics), self._best(message)
            )
            return
        quiet = min(max(_PROGRESS_S, _PROGRESS_SHARE * self.state.ran_s), _MOST_PROGRESS_S)
        self._quiet_until[message.trial] = now + quiet
        self._write("progress", message.trial, **self._position(message))

    def saved(self, message: Progress) -> None:
        """Records the checkpoints of a message."""
        for global_step, written in message.checkpoints.items():
            self._write("checkpoint", message.trial, path=written, global_step=global_step)
        self._clear(message)

    def judged(self, message: DecisionDue) -> None:
        """Records what a trial was worth at a decision point, before it is decided on."""
        value = message.metrics.get(self._spec.metric)
        # In one line with the checkpoints: a trial that resumes from one is not judged there again.
        position = {**self._position(message), "checkpoints": message.checkpoints}
        self._write("result", message.trial, due=message.due, value=value, **position)
        self._clear(message)

    def decided(self, decision: Decision) -> None:
        """Records the decision on what was judged last."""
        judged = self.state.trials[decision.trial].results[-1]
        details = {"details": dict(decision.details)} if decision.details else {}
        self._write(
            "verdict",
            decision.trial,
            epoch=judged.epoch,
            global_step=judged.global_step,
            value=judged.value,
            decision=decision.word,
            reason=decision.reason,
            cutoff=decision.cutoff,
            compared=decision.compared,
            **details,
        )

    def paused(self, trial: int, reason: str) -> None:
        """Records that a trial is paused by a decision, where it was judged.

        Raises:
            SpecError: It has no checkpoint of there: what it has reached would be lost.
        """
        record = self.state.trials[trial]
        if self._saves and record.results and record.results[-1].global_step not in record.checkpoints:
            raise no_checkpoint(self._spec.trains, "to resume from where it is paused")
        self._write("pause", trial, reason=reason)

    def donated(self, number: int) -> None:
        """Keeps the newest checkpoint of a trial as a donor checkpoint, for others to resume from."""
        trial = self.state.trials[number]
        if not trial.checkpoints:
            return
        before, step = trial.donor_checkpoint, max(trial.checkpoints)
        with self._storing():
            kept = self._checkpoints.keep(self._within(trial.checkpoints[step]), number)
        self._write("offer", number, path=kept, global_step=step)
        if before is not None and before != kept:
            with self._storing():
                self._checkpoints.delete(before)

    def exploited(self, decision: Exploit) -> None:
        """Records that a trial resumes from the donor checkpoint of another, with a configuration of its own.

        Raises:
            SpecError: The other has no checkpoint.
        """
        donor = self.state.trials[decision.donor].donor_checkpoint
        if donor is None:
            raise no_checkpoint(self._spec.trains, "for others to resume from")
        before = self.state.trials[decision.trial].checkpoints.values()
        superseded = [self._within(checkpoint) for checkpoint in before]
        with self._storing():
            path = self._checkpoints.hand_over(donor, decision.trial)
        self._write(
            "exploit",
            decision.trial,
            source=decision.donor,
            config=decision.config,
            path=path,
            global_step=step_of(path),
            reason=decision.reason,
        )
        with self._storing():
            for checkpoint in superseded:
                if checkpoint != path:
                    self._checkpoints.delete(checkpoint)

    def stop_requested(self, number: int, request: StopRequest, *, of_sweep: bool = False) -> None:
        """Records that a trial was asked to stop; once, also where its next attempt is asked again.

        Args:
            number: The trial's.
            request: What it was asked.
            of_sweep: Whether that is because the sweep ends: then it stands for this run of the sweep alone.
        """
        trial = self.state.trials[number]
        if (trial.stop_reason, trial.stop_status) != (request.reason, request.status):
            whose = {"of_sweep": True} if of_sweep else {}
            self._write("stop", number, reason=request.reason, status=request.status, **whose)

    def failed(self, number: int, failure: Failure, latest: Progress | None, *, retried: bool) -> None:
        """Records that an attempt failed, and how far it was, if it reported that."""
        reached = {} if latest is None else {"epoch": latest.epoch, "global_step": latest.global_step}
        self._write("failure", number, **dataclasses.asdict(failure), retried=retried, **reached)

    def ended(self, message: Ended) -> None:
        """Records how a trial ended; one that pauses has not."""
        # In one line with the end: a trial that resumes from its last checkpoint has an end to come.
        position = {**self._position(message), "checkpoints": message.checkpoints}
        if message.status == "paused":
            self._write("pause", message.trial, reason=message.reason, **position)
            self._clear(message)
            return
        if message.failure is not None:
            self.failed(message.trial, message.failure, message, retried=False)
        best = self._best(message)
        self._write(
            "end",
            message.trial,
            status=message.status,
            value=best.value if best is not None else None,
            due=message.due,
            reason=message.reason,
            **({"fused": message.fused} if message.fused else {}),
            **position,
        )
        self._best_before.pop(message.trial, None)
        self._quiet_until.pop(message.trial, None)
        self._clear(message)

    def close(self) -> None:
        """Closes the journal."""
        self._journal.close()

    def _best(self, message: Progress) -> Best | None:
        """The better of an attempt's best and what the attempts before it reached; none of one that is skipped."""
        if isinstance(message, Ended) and message.failure is not None and message.failure.kind == "skipped":
            return None
        before, best = self._best_before.get(message.trial), message.best
        if before is None or best is None:
            return best or before
        return best if self._objective.is_better(best.value, before.value) else before

    def _position(self, message: Progress) -> dict[str, Any]:
        best = self._best(message)
        return {
            "epoch": message.epoch,
            "global_step": message.global_step,
            "metrics": message.metrics,
            "best": best.fields() if best is not None else None,
            "seconds": round(message.seconds, 3),
        }

    def _clear(self, message: Progress) -> None:
        """Deletes what is no longer needed, now that the checkpoints of a message are recorded."""
        for global_step, discarded in message.discarded.items():
            self._delete(message.trial, global_step, discarded)
        if message.checkpoints or self.state.trials[message.trial].finished:
            self._retain(message.trial)

    def _retain(self, number: int) -> None:
        for trial, step in self._retention.superfluous(self.state.trials[number]):
            self._delete(trial.number, step, self._within(trial.checkpoints[step]))

    def _within(self, checkpoint: str) -> str:
        return checkpoint.removeprefix(f"{self.sweep_folder}/")

    def _delete(self, number: int, global_step: int, file: str) -> None:
        self._write("deleted", number, path=file, global_step=global_step)
        with self._storing():
            self._checkpoints.delete(file)

    def _write(self, event: str, trial: int | None = None, **fields: Any) -> None:
        with self._storing():
            entry = self._journal.write(event, trial, **fields)
        self.state.apply(entry)
        if self._listener is not None:
            try:
                self._listener(self.state, entry)
            except Exception as error:  # whoever watches decides nothing: a closed pipe, a stream of ASCII
                self._listener = None
                warnings.warn(f"the sweep is not shown any more: {type(error).__name__}: {error}", stacklevel=2)

    @contextlib.contextmanager
    def _storing(self) -> Iterator[None]:
        """Says that it is the storage, where it is the storage."""
        try:
            yield
        except OSError as error:
            raise StorageError(self.sweep_folder.address, error) from error
