"""The driver: what happens in a sweep on which message. Messages in, orders out.

It knows no Ray and no clock but the one it is given, and starts nothing itself: an executor asks it what to start
(:meth:`Driver.next`), tells it what happened (:meth:`Driver.receive`, :meth:`Driver.lost`), and does what it
orders. Ray Tune, ``try`` and the simulation drive the same one.
"""

from __future__ import annotations

import dataclasses
import math
from collections import deque
from collections.abc import Iterable

from xaytune.driver.attempts import Attempts
from xaytune.driver.early_end import EarlyEnd, Ending, outcome_of
from xaytune.driver.failures import ALONE, LOSSES, RestartPolicy
from xaytune.driver.lengths import never_judged, take_length
from xaytune.driver.orders import Order, Release, RequestStop
from xaytune.driver.recorder import Recorder
from xaytune.driver.resuming import Remaining, next_attempt
from xaytune.driver.starts import SlowStarts
from xaytune.driver.thinking import Thinking
from xaytune.driver.trial_ends import last_words, settled
from xaytune.errors import SpecError, StorageError
from xaytune.messages import (
    Assignment,
    DecisionDue,
    Ended,
    Failure,
    FailureKind,
    Length,
    Message,
    Progress,
    Refused,
    Started,
    StopRequest,
)
from xaytune.records.clock import Clock
from xaytune.records.state import SweepState
from xaytune.search.method import (
    Action,
    Decision,
    Done,
    End,
    Exploit,
    KeepCheckpoint,
    NewTrial,
    Pause,
    Result,
    Resume,
    SearchMethod,
    Stop,
)
from xaytune.sweep.seeds import trial_seed
from xaytune.sweep.spec import SweepSpec


class Driver:
    """Drives one sweep.

    Args:
        spec: The sweep.
        method: Decides which configurations are tried, and which trials train on.
        recorder: Records what happens, and knows what follows from it.
        clock: Tells the time.
        remaining: What is left of a sweep that is resumed; the method knows of it already.
        delay_s: Seconds that a trial may take until it hears what it is asked.

    Attributes:
        ending: Why the sweep ends before its time; None while it does not.
        refused: Whether that is that no trial of it can run, and none has.
    """

    def __init__(
        self,
        spec: SweepSpec,
        method: SearchMethod,
        recorder: Recorder,
        clock: Clock,
        remaining: Remaining | None = None,
        delay_s: float = 0.0,
    ) -> None:
        self.ending: Ending | None = None
        self.refused = False
        self._spec, self._method, self._recorder = spec, method, recorder
        self._attempts = Attempts(clock, spec.stop_grace_s, delay_s, spec.stall_timeout_s)
        self._early_end = EarlyEnd(spec, clock, recorder.state.ran_s)
        self._restarts = RestartPolicy(spec.failures.retries)
        self._thinking = Thinking(clock)
        self._slow_starts = SlowStarts()
        self._exhausted = False  # the method has nothing to begin any more
        remaining = remaining or Remaining()
        # What is to be started before the method is asked.
        self._ready: deque[Assignment] = deque()
        # Decisions to stop that trials did not carry out yet: an attempt that is lost meanwhile hears of it again.
        self._stops = dict(remaining.stops)
        for trial in remaining.unfinished:
            stop = self._stop_at_start(trial)
            if stop is not None:
                recorder.stop_requested(trial, stop)
            self._ready.append(self._assignment(trial, stop))
        self._follow(remaining.actions)

    @property
    def state(self) -> SweepState:
        """What is known of the sweep."""
        return self._recorder.state

    @property
    def fatal(self) -> SpecError | StorageError | None:
        """What the sweep ends for, if that is to be raised."""
        return self._early_end.error

    @property
    def finished(self) -> bool:
        """Whether nothing runs, and nothing will be started any more."""
        return not self._attempts and self.closed

    @property
    def closed(self) -> bool:
        """Whether nothing will be started any more, unless a trial that runs is lost."""
        return not self._ready and (self._exhausted or self.ending is not None)

    @property
    def running(self) -> int:
        """How many trials the executor was given that are neither over nor paused."""
        return len(self._attempts)

    def runs(self, trial: int) -> bool:
        """Tells whether the executor was given a trial, and it is neither over nor paused."""
        return trial in self._attempts

    def node_of(self, trial: int) -> str:
        """Returns the id of the node that a running trial runs on; empty while that is not known."""
        return self._attempts[trial].node_id

    def next(self) -> Assignment | None:
        """Returns what a free worker is to start; None while there is nothing."""
        assignment = None
        if self._ready:
            assignment = self._ready.popleft()
        elif self.ending is None:
            assignment = self._chosen()
        if assignment is not None:
            self._attempts.add(assignment)
        return assignment

    def started(self, trial: int) -> list[Order]:
        """Learns that a worker took a trial."""
        self._attempts.begin(trial)
        if (request := self._attempts[trial].stop) is not None:  # it was asked before it could hear
            return [RequestStop(trial, request)]
        return self._ask_to_stop(trial, self.ending.request) if self.ending is not None else []

    def note_training(self, trials: Iterable[int]) -> None:
        """Learns that a process in which some trials take turns trains: none of them hangs."""
        for trial in trials:
            self._attempts.note_training(trial)

    def receive(self, message: Message) -> list[Order]:
        """Learns what a trial has to say.

        Returns:
            What follows. A trial that waits for a decision, and is not to be released, trains on.
        """
        if isinstance(message, Refused):
            return self._refused(message)
        if isinstance(message, Started):
            self._attempts.start(message.trial, message.node_id)
            self._recorder.started(message)
            return []
        if isinstance(message, Length) and self.fatal is None:
            self._early_end.fail(take_length(message, self._method, self._recorder))
        if isinstance(message, Ended):
            failure = message.failure
            if failure is not None and failure.kind in ALONE:
                self._recorder.noted(*message.notes)
                return self.lost(message.trial, failure.kind, failure.traceback or failure.error)
            return self._ended(message)
        if isinstance(message, Progress):
            self._recorder.reported(message)
            # Kept for what may be left of the trial: what was written down need not stay in memory.
            written = message if message.history is None else dataclasses.replace(message, history=None)
            self._attempts.note_progress(message.trial, written)
        if isinstance(message, DecisionDue) and self._attempts[message.trial].killed is None:
            return self._decide(message)
        return []

    def lost(self, trial: int, kind: FailureKind, error: str) -> list[Order]:
        """Learns that the process of a trial is gone without an end: it is restarted, or has failed."""
        attempt = self._attempts[trial]
        if not attempt.begun:
            kind = "not_started"
        if kind == "lost_with_others" and self._pausing is None:
            attempt.killed = None  # which of them hung, or did not stop, shows when each has a process of its own
        record = self.state.trials[trial]
        if attempt.killed is None and self._pausing is None and self._restarts.allows(record, kind):
            self._recorder.failed(trial, Failure(kind, LOSSES[kind], error), attempt.latest, retried=True)
            self._attempts.remove(trial)
            stop = attempt.assignment.stop or self._stop_at_start(trial)
            self._ready.append(self._assignment(trial, stop=stop))
            return [Release(trial)]
        return self._ended(last_words(attempt, record, kind, error, self._pausing))

    def tick(self) -> list[Order]:
        """Lets time pass: ends what is overdue, and the sweep when its budget is spent."""
        orders: list[Order] = [*self._attempts.overdue()]
        if (reason := self._thinking.too_long()) is not None:
            self._recorder.fell_back(reason)
            self._method.fall_back(reason)
        if self.ending is None and (ending := self._early_end.due(self.state)) is not None:
            orders += self._wind_down(ending)
        return orders

    def interrupt(self) -> list[Order]:
        """Pauses the sweep: its trials save and end through their loops, and resume when it does."""
        return self._wind_down(Ending.interrupted()) if self.ending is None else []

    def outcome(self) -> tuple[str, str | None]:
        """Returns how the sweep ended, and why if it was not finished."""
        nothing_left = sum(trial.finished for trial in self.state.trials.values()) == self.state.num_trials
        if self.ending is not None and not (self.ending.state == "interrupted" and nothing_left):
            return self.ending.state, self.ending.reason
        return outcome_of(self.state, self._spec.metric)

    @property
    def _pausing(self) -> StopRequest | None:
        """What trials are asked, where the sweep is being interrupted."""
        if self.ending is None or self.ending.request.status != "paused":
            return None
        return self.ending.request

    def _chosen(self) -> Assignment | None:
        """Asks the method."""
        with self._thinking.measured():
            chosen = self._method.next()
        if isinstance(chosen, NewTrial):
            number = len(self.state.trials)
            seed = trial_seed(self._spec.search.seed, number)
            assignment = Assignment(trial=number, seed=seed, config=chosen.config)
            self._recorder.new_trial(assignment, chosen.reason)
            return assignment
        if isinstance(chosen, Resume):
            self._method.on_resume(chosen.trial)
            return self._assignment(chosen.trial)
        self._exhausted = isinstance(chosen, Done)
        return None

    def _stop_at_start(self, trial: int) -> StopRequest | None:
        """What an attempt is told at once: to end, where its trial was judged while it was paused.

        Another attempt hears of it where its trial was judged.
        """
        return self._stops.get(trial) if self._method.points.pausing else None

    def _assignment(self, trial: int, stop: StopRequest | None = None) -> Assignment:
        return next_attempt(self.state.trials[trial], self._method.points.axis, stop)

    def _refused(self, message: Refused) -> list[Order]:
        self._attempts.remove(message.trial)
        self._early_end.fail(SpecError(message.problems))
        untouched = (t.attempts <= 1 and not t.finished and not t.global_step for t in self.state.trials.values())
        self.refused = all(untouched)
        return []

    def _decide(self, message: DecisionDue) -> list[Order]:
        """Decides on a trial; where an earlier attempt was decided on already, that stands."""
        trial, axis = message.trial, self._method.points.axis
        time = axis.reached_by(message)
        results = self.state.trials[trial].results
        judged = axis.reached_by(results[-1]) if results else -1
        told = self._ask_to_stop(trial, self._stops[trial]) if trial in self._stops and time >= judged else []
        if told or time <= judged:
            self._recorder.saved(message)
            return told
        self._recorder.judged(message)
        with self._thinking.measured():
            actions = self._method.on_result(trial, self._result(message, time))
        if isinstance(own := actions[0], Decision):
            self._recorder.decided(own)
        return self._follow(actions)

    def _result(self, message: DecisionDue | Ended, time: int) -> Result:
        value = message.metrics.get(self._spec.metric)
        if value is not None and not math.isfinite(value):
            value = None
        return Result(time, value, message.metrics, message.seconds, message.due)

    def _follow(self, actions: Iterable[Action]) -> list[Order]:
        """Carries out what the method decided."""
        orders: list[Order] = []
        for action in actions:
            if isinstance(action, KeepCheckpoint):
                self._recorder.donated(action.trial)
            elif isinstance(action, Exploit):
                self._recorder.exploited(action)
                orders += self._release(action.trial)
            elif isinstance(action, Pause):
                self._recorder.paused(action.trial, action.reason)
                orders += self._release(action.trial)
            elif isinstance(action, Stop):
                orders += self._stop(action)
        return orders

    def _stop(self, decision: Stop) -> list[Order]:
        """Asks a trial to end; a paused one is resumed for that, to end through its own loop."""
        request = StopRequest(decision.reason, decision.status)
        self._stops[decision.trial] = request
        if decision.trial in self._attempts:
            return self._ask_to_stop(decision.trial, request)
        self._recorder.stop_requested(decision.trial, request)
        if self.ending is None:
            self._ready.append(self._assignment(decision.trial, request))
        return []

    def _ask_to_stop(self, trial: int, request: StopRequest) -> list[Order]:
        if not self._attempts.request_stop(trial, request):
            return []
        of_sweep = self.ending is not None and request is self.ending.request
        self._recorder.stop_requested(trial, request, of_sweep=of_sweep)
        return [RequestStop(trial, request)] if self._attempts[trial].begun else []

    def _release(self, trial: int) -> list[Order]:
        if trial not in self._attempts:
            return []
        self._attempts.remove(trial)
        return [Release(trial)]

    def _ended(self, message: Ended) -> list[Order]:
        attempt = self._attempts.remove(message.trial)
        if message.failure is not None and message.failure.kind == "storage":
            self._early_end.fail(StorageError(self._recorder.sweep_folder.address, message.failure.error))
        decided = self._stops.get(message.trial)
        if decided is not None and decided.status == "completed" and message.status == "stopped":
            # It was asked to stop for the sweep's sake as well, which came first.
            message = dataclasses.replace(message, status="completed", reason=decided.reason)
        message = settled(message, self.state.trials[message.trial], self._spec)
        self._recorder.reported(message)
        self._recorder.noted(*message.notes)
        self._recorder.ended(message)
        points = self._method.points
        hints = self._slow_starts.add(message), never_judged(message, points, self.state.trials[message.trial])
        self._recorder.noted(*filter(None, hints))
        if message.status == "paused":
            return []
        self._stops.pop(attempt.assignment.trial, None)
        self._early_end.add(self.state.trials[message.trial], self.state)
        return self._follow(self._method.on_end(message.trial, self._end(message)))

    def _end(self, message: Ended) -> End:
        time = self._method.points.axis.reached_by(message)
        infeasible = message.failure is not None and message.failure.kind in ("infeasible", "skipped")
        best = self.state.trials[message.trial].value
        assert message.status != "paused"
        return End("infeasible" if infeasible else message.status, best, self._result(message, time))

    def _wind_down(self, ending: Ending) -> list[Order]:
        """Starts no more trials, and asks those that run to end; those that wait for a worker are dropped."""
        self.ending = ending
        self._ready.clear()
        orders: list[Order] = []
        for trial in self._attempts:
            begun = self._attempts[trial].begun
            orders += self._ask_to_stop(trial, ending.request) if begun else self._release(trial)
        return orders
