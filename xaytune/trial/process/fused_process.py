"""The process of many trials: their recipes take turns in it, and their Trainers are trained fused.

Each recipe runs in a greenlet of its own, all on the main thread. Where its Trainer trains, it asks this process
for each step, and the steps of all are taken at once (:mod:`xaytune.trainer.fused`); where one waits for a
decision, the others go on. What a process has once (its random states, its output, settings of torch) changes with
the trial whose code runs.

From the actor: ``("assign", Assignment)``, ``("stop", trial, StopRequest)``, ``("go", trials)``, ``("end",)``.
To the actor: how many trials it wants at once, and a list of ``(message, rows)``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import operator
import os
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import greenlet
import torch

from xaytune.messages import (
    Assignment,
    DecisionDue,
    Ended,
    Message,
    Progress,
    Refused,
    Started,
    StopRequest,
    Task,
    standing,
)
from xaytune.records.history import Row
from xaytune.trainer.current import set_current_trial
from xaytune.trainer.fused.fusion import Answer, Fusion
from xaytune.trainer.fused.held import SharedError
from xaytune.trainer.fused.member import Member
from xaytune.trainer.fused.states import States
from xaytune.trainer.run import Run
from xaytune.trial.common.channel import Channel
from xaytune.trial.common.output import file_of, flush_output, open_output
from xaytune.trial.process import torch_settings
from xaytune.trial.process.imports import Imports
from xaytune.trial.process.width import Memory, Width, clock_for
from xaytune.trial.run.runner import NeedsOwnProcessError, RecipeRun

# Seconds between two looks, while trials train, at what the actor says.
_LOOK_S = 0.02
# Seconds for which recipes are begun one after the other; then those that wait for a step take one.
_BEGIN_S = 0.5
# Seconds between two messages that only tell that a recipe begins, or bring what can wait: each costs the driver
# time.
_TOLD_S = 0.1
# Frames of the C stack that an error of torch walks up. Beneath a greenlet's own frames it finds what others
# have left there, which once in some thousand errors ends the process: so a recipe has that many beneath it.
_FRAMES = 64
_SHARED = (
    "trials share a model, a buffer or a random generator that is made once for all of them, such as at the top "
    "of a module; make it in the recipe, and they are fused"
)


class FusedProcess:
    """Trains the trials that an actor assigns, until it says that there are no more.

    Args:
        channel: To the actor.
        task: What all trials of the sweep share.
        imports: What is imported already.

    Attributes:
        settings: Of torch, while no recipe runs.
    """

    def __init__(self, channel: Channel, task: Task, imports: Imports) -> None:
        self._channel, self._task, self._imports = channel, task, imports
        self._fusion = Fusion(tell=self._note, timed=True)
        torch.set_num_threads(max(1, int(task.cpus)))  # as for each recipe
        self.settings = torch_settings.read()
        self._trials: dict[int, _FusedTrial] = {}
        self._asking: list[Member] = []  # for a step or an evaluation
        self._whose: dict[Member, _FusedTrial] = {}
        self._inbox: deque[tuple[Any, ...]] = deque()  # what came while a recipe ran
        self._outbox: list[tuple[Message, list[tuple[Any, ...]]]] = []
        self._notes: list[str] = []
        self._urgent = self._over = False
        self._next_look = self._sent_at = 0.0
        self._clock = clock_for(task)
        self._width = Width(Memory(task.gpus)) if task.finds_width else None

    def run(self) -> None:
        """Trains."""
        while not self._over:
            self._listen()
            if self._asking:
                begun, compared = self._clock(), self._fusion.compared
                asking, self._asking = self._asking, []
                answers = self._perform(asking)
                answered = {answer.member for answer in answers}
                self._asking += [member for member in asking if member not in answered]
                for answer in answers:
                    self._whose[answer.member].resume(answer)
                if self._fusion.compared == compared:
                    self._try_width(answers, self._clock() - begun)
            self._send()

    def fit(self, run: Run) -> None:
        """Trains a Trainer of the recipe that is running now; called in its greenlet."""
        try:
            self._fit(self._current(), run)
        except SharedError:
            self._note(f"trained in processes of their own: {_SHARED}")
            raise NeedsOwnProcessError(_SHARED) from None

    def _fit(self, trial: _FusedTrial, run: Run) -> None:
        member = self._fusion.begin(run, trial.states)
        if torch_settings.read() != self.settings:
            member.refused = "its recipe changes a setting of torch for the whole process"
            self._note(f"trained alone: {member.refused}")
        self._whose[member] = trial
        trial.member = member
        loop = run.loop(member)
        try:
            member.request = next(loop)
            while True:
                answer = self._wait_for_answer(trial, member)
                member.request = loop.send(answer.value) if answer.error is None else loop.throw(answer.error)
        except StopIteration:
            return
        finally:
            trial.fused = member.fused
            self._fusion.end(member)
            trial.member = None
            del self._whose[member]

    def tell(self, message: Message, rows: Sequence[Row], *, urgent: bool) -> None:
        """Sends a message with the next ones; at once, where somebody waits for the answer."""
        pauses = isinstance(message, Ended) and message.status == "paused"  # which the actor may be done with
        if self._notes and isinstance(message, Progress) and not pauses:
            message = dataclasses.replace(message, notes=(*message.notes, *self._notes))
            self._notes = []
        self._outbox.append((message, [tuple(row) for row in rows]))
        self._urgent |= urgent

    def wait(self, trial: _FusedTrial) -> None:
        """Lets the others go on until the driver has decided on a trial; called in its greenlet."""
        trial.waits = True
        trial.yield_to_others()
        trial.waits = False
        self._fusion.randomness.enter(trial.states)

    def hear(self) -> None:
        """Takes requests to stop, and sends what is due, while a recipe runs; the rest waits until it yields."""
        while (message := self._channel.get(0.0)) is not None:
            if self._is_of_next_attempt(message) or not self._take_stop(message):
                self._inbox.append(message)
        self._channel.flush(0)
        if self._outbox and time.monotonic() > self._sent_at + _TOLD_S:
            self._put()

    def _current(self) -> _FusedTrial:
        now = greenlet.getcurrent()
        return next(trial for trial in self._trials.values() if trial.greenlet is now)

    def _wait_for_answer(self, trial: _FusedTrial, member: Member) -> Answer:
        self._asking.append(member)
        answer: Answer = trial.yield_to_others()
        return answer

    def _listen(self) -> None:
        """Takes what the actor says; waits for it where there is nothing to train."""
        now = time.monotonic()
        if self._asking and now < self._next_look:
            return
        self._next_look = now + _LOOK_S
        self._channel.flush(0)
        message = self._next(0.0 if self._asking else None)
        begun = time.monotonic()
        while message is not None:
            kind, *content = message
            if kind == "assign":
                self._begin(*content)
            elif kind == "stop":
                self._take_stop(message)
            elif kind == "go":
                for trial in content[0]:
                    if trial in self._trials and self._trials[trial].waits:
                        self._trials[trial].resume(None)
            else:
                self._over = True
            if self._asking and time.monotonic() - begun > _BEGIN_S:
                return
            message = self._next(0.0)

    def _next(self, timeout: float | None) -> Any:
        """Returns what the actor said next; None if nothing came in time."""
        return self._inbox.popleft() if self._inbox else self._channel.get(timeout)

    def _is_of_next_attempt(self, message: tuple[Any, ...]) -> bool:
        """Whether a message is a request to stop of an attempt that waits to begin, not of the one before it."""
        waiting = (content[0].trial for kind, *content in self._inbox if kind == "assign")
        return message[0] == "stop" and message[1] in waiting

    def _take_stop(self, message: tuple[Any, ...]) -> bool:
        """Gives a trial a request to stop; tells whether the message was one, of a trial that has begun."""
        if message[0] != "stop" or message[1] not in self._trials:
            return False
        _, trial, request = message
        self._trials[trial].take(request)
        return True

    def _begin(self, assignment: Assignment) -> None:
        """Runs the recipe of a trial until it asks for something."""
        sender = assignment.sender
        if self._imports.problems:
            self.tell(Refused(**sender, problems=tuple(self._imports.problems)), [], urgent=True)
            return
        self.tell(Started(**sender, pid=os.getpid()), [], urgent=True)
        if time.monotonic() > self._sent_at + _TOLD_S:  # else with what the next one says
            self._send()
        output = Path(self._task.sweep_dir) / file_of(assignment.trial)
        trial = self._trials[assignment.trial] = _FusedTrial(self, assignment, output)
        self._fusion.randomness.enter(trial.states)
        trial.start(functools.partial(self._train, trial))

    def _train(self, trial: _FusedTrial) -> None:
        """Runs a recipe to its end, in its greenlet."""
        run = RecipeRun(self._task, trial.assignment, trial, self._imports.shared, conductor=self.fit)
        trial.shown = run.trial
        run.run()
        self._fusion.randomness.enter(trial.states)
        flush_output(trial.output)
        self._fusion.randomness.vacate()
        trial.close()
        del self._trials[trial.assignment.trial]

    def _send(self) -> None:
        """Sends what there is to say, if somebody waits for it or nothing else is left to do."""
        idle = not self._asking or time.monotonic() >= self._next_look
        if self._urgent or (self._outbox and idle):
            self._put()
            if not self._asking:
                self._channel.flush()

    def _put(self) -> None:
        wanted = self._width.wanted if self._width is not None else None
        self._channel.put((wanted, self._outbox))
        self._outbox, self._urgent, self._sent_at = [], False, time.monotonic()

    def _perform(self, asking: list[Member]) -> list[Answer]:
        """Does what members ask for, in two halves where it is tried whether that is slower."""
        if self._width is None or not self._width.halves(len(self._trials)):
            return self._fusion.perform(asking)
        half = len(asking) // 2
        return [answer for part in (asking[:half], asking[half:]) for answer in self._fusion.perform(part)]

    def _try_width(self, answers: Sequence[Answer], seconds: float) -> None:
        """Looks whether more trials at once would train faster, where the spec leaves that open."""
        if self._width is None:
            return
        wanted = self._width.wanted
        rows = [len(answer.value) if isinstance(answer.value, list) else 0 for answer in answers]
        steps, in_a_row = sum(max(1, row) for row in rows), max(rows, default=0)
        found = self._width.did(steps, in_a_row, seconds, len(self._trials), self._fusion.most)
        if found is not None:
            self._note(found)
        self._urgent |= self._width.wanted != wanted

    def _note(self, line: str) -> None:
        self._notes.append(f"fused: {line}")


class _FusedTrial:
    """A trial among others of the process: its greenlet, and its way to the driver.

    Args:
        process: The process.
        assignment: What is the trial's own.
        output: The file that it prints to.

    Attributes:
        states: Its random states.
        waits: Whether it waits for a decision.
        shown: The trial as its recipe sees it.
        fused: With how many trials at once its steps were taken.
        member: Its run, while that trains.
        busy: Whether a heartbeat would have to wait.
    """

    busy = False

    def __init__(self, process: FusedProcess, assignment: Assignment, output: Path) -> None:
        self.assignment, self.output = assignment, output
        self.states = States(entered=self._entered, left=self._left)
        self.waits, self.fused = False, 0
        self.shown: Any = None
        self.greenlet: greenlet.greenlet | None = None
        self._process, self._settings = process, process.settings
        self.member: Member | None = None
        self._request: StopRequest | None = None
        self._file: int | None = None

    def start(self, train: Any) -> None:
        """Runs it until it yields."""
        for _ in range(_FRAMES // 2):  # each makes two at least
            train = functools.partial(operator.call, train)
        self.greenlet = greenlet.greenlet(train)
        self.greenlet.switch()

    def yield_to_others(self) -> Any:
        """Lets the others go on, called in its greenlet; returns what it is resumed with."""
        assert self.greenlet is not None
        assert self.greenlet.parent is not None
        return self.greenlet.parent.switch()

    def resume(self, answer: Any) -> None:
        """Runs it on until it yields again."""
        assert self.greenlet is not None
        self.greenlet.switch(answer)

    def take(self, request: StopRequest) -> None:
        """Takes a request to stop; the first one counts, but for one that only pauses."""
        self._request = standing(self._request, request)
        if self.member is not None:
            self.member.one_step_at_a_time = True

    def tell(self, message: Message, rows: Sequence[Row]) -> None:
        """Sends a message, with the rows that are its history, and does not wait."""
        ended = isinstance(message, Ended)
        if isinstance(message, Ended):
            message = dataclasses.replace(message, fused=self.fused)
        self._process.tell(message, rows, urgent=ended)

    def ask(self, message: DecisionDue, rows: Sequence[Row]) -> StopRequest | None:
        """Sends a message, waits until training may go on, and returns the request to stop, if there is one."""
        self._process.tell(message, rows, urgent=True)
        self._process.wait(self)
        return self.stop_request()

    def stop_request(self) -> StopRequest | None:
        """Returns a request to stop that has come; steps ask for it, also those of a loop of the recipe's own."""
        self._process.hear()
        request, self._request = self._request, None
        return request

    def close(self) -> None:
        """Gives up its output."""
        if self._file is not None:
            os.close(self._file)

    def _entered(self) -> None:
        """Its code is to run: what the process has once becomes its own."""
        if self._file is None:
            self._file = open_output(self.output)
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        os.dup2(self._file, 1)
        os.dup2(self._file, 2)
        set_current_trial(self.shown)
        if self._settings != self._process.settings:
            torch_settings.write(self._settings)

    def _left(self) -> None:
        """The code of another one is to run, or none: what is computed for all has the process's settings."""
        self._settings = torch_settings.read()
        if self._settings != self._process.settings:
            torch_settings.write(self._process.settings)
