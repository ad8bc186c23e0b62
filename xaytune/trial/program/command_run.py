"""A trial whose training is a program of its own, which a command starts.

The way in which the program speaks first is that of the trial. A Python program that says
``xaytune.current_trial()`` runs the trial itself (:mod:`xaytune.trial.program.joining`): its messages are passed
on here, and its exit code has the last word. Any other writes lines of JSON (:mod:`xaytune.trial.program.lines`),
whose events are fired here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from signal import SIGTERM
from typing import Any

from xaytune.messages import (
    Assignment,
    DecisionDue,
    Ended,
    Failure,
    Heartbeat,
    Progress,
    Task,
    nothing_new,
)
from xaytune.records.history import Row
from xaytune.sweep.command import Command, config_text
from xaytune.sweep.objective import Objective
from xaytune.trainer.callbacks import Pause, TrainState
from xaytune.trainer.context import RunContext
from xaytune.trial.common.channel import Channel
from xaytune.trial.common.link import TRAIN_ON, Link
from xaytune.trial.common.output import file_of, last_lines
from xaytune.trial.common.recipe import portable
from xaytune.trial.program.command_process import Program
from xaytune.trial.program.lines import Lines, checkpoint_of
from xaytune.trial.run.failures import ProgramFailedError, ProgramLostError
from xaytune.trial.run.reporter import Reporter
from xaytune.trial.run.resumable_checkpoints import checkpoint_dir_of, settle_checkpoints
from xaytune.trial.run.runner import RecipeRun
from xaytune.trial.run.trial import Trial

# Seconds between two looks whether the trial is to stop.
_LOOK_S = 0.1
# Seconds that a program that has trained all it is to train has to end by itself, and that what one that has
# exited leaves behind has to let go of its channel.
_LAST_S = 5.0
# What one that was told to stop may exit with: done, or ended by SIGTERM, as itself or a shell says it.
_STOPPED = (0, -SIGTERM, 128 + SIGTERM)
_CHECKPOINT = "XAYTUNE_CHECKPOINT"
# Lines, of the last that a program printed, that are searched for its error, and that are shown: launchers such
# as torchrun add a long account of their own.
_SEARCHED_LINES = 200
_SHOWN_LINES = 20
# The last line of a traceback, after lines that are indented, or as torch marks it.
_ERROR = re.compile(r"(?:^[ \t].*\n|^\[rank\d+\]: )([\w.]+(?:Error|Exception|Interrupt): \S.*)", re.MULTILINE)


class CommandRun:
    """Runs the program of one trial.

    Args:
        task: What all trials of the sweep share.
        assignment: What is this trial's own.
        link: The way to the driver.
        on_start: Called with the words that start the program.
    """

    def __init__(
        self,
        task: Task,
        assignment: Assignment,
        link: Link,
        on_start: Callable[[list[str]], None] = lambda _: None,
    ) -> None:
        self._task, self._assignment, self._link, self._on_start = task, assignment, link, on_start

    def run(self) -> Ended:
        """Runs the program to its end, tells how that was, and returns it.

        Raises:
            ProgramLostError: A signal killed the program.
            KeyboardInterrupt: The user ended it, which was told.
        """
        try:
            damaged = settle_checkpoints(self._task, self._assignment)
            program = _start_program(self._task, self._assignment, self._on_start)
        except Exception as error:
            return self._fail(error)
        try:
            self._await_first_word(program)
            if program.channel is not None:
                return _Relay(self._task, self._assignment, self._link, program).run(program.channel, damaged)
            return self._follow(program, damaged)
        finally:
            program.close()

    def _fail(self, error: Exception) -> Ended:
        """Ends a trial whose program was not started."""

        def fail(config: dict[str, Any], trial: Trial) -> None:
            raise error

        return RecipeRun(self._task, self._assignment, self._link, recipe=fail, damaged={}).run()

    def _follow(self, program: Program, damaged: Mapping[int, str]) -> Ended:
        said = functools.partial(_said, self._task, self._assignment)

        def recipe(config: dict[str, Any], trial: Trial) -> TrainState | None:
            return follow(program, trial, self._task.objective, run.reporter, said)

        run = RecipeRun(self._task, self._assignment, self._link, recipe=recipe, damaged=damaged)
        ended = run.run()
        if isinstance(run.raised, KeyboardInterrupt):
            raise run.raised
        return ended

    def _await_first_word(self, program: Program) -> None:
        while not program.lines and program.channel is None and program.exit_code is None:
            program.wait(_LOOK_S)
            if (request := self._link.stop_request()) is not None:
                self._assignment = dataclasses.replace(self._assignment, stop=request)
                program.ask_to_stop()


def _start_program(task: Task, assignment: Assignment, on_start: Callable[[list[str]], None]) -> Program:
    """Starts the program of a trial, with its folder, its configuration's file and its environment.

    Args:
        task: What all trials of the sweep share.
        assignment: What is this trial's own.
        on_start: Called with the words that start it.

    Raises:
        ProgramFailedError: It cannot be started.
    """
    command = task.recipe
    assert isinstance(command, Command)
    folder = Path(task.sweep_dir).absolute() / "folders" / f"{assignment.trial:05d}"
    places = {"folder": str(folder), "config_file": str(folder / "config.json")}
    if command.uses("folder") or command.uses("config_file"):
        folder.mkdir(parents=True, exist_ok=True)
    if command.uses("config_file"):
        Path(places["config_file"]).write_text(config_text(assignment.config))
    words = command.words_for(assignment.config, places)
    on_start(words)
    environment = {"OMP_NUM_THREADS": str(max(1, int(task.cpus)))}
    if (checkpoint := checkpoint_of(checkpoint_dir_of(task, assignment))) is not None:
        environment[_CHECKPOINT] = str(checkpoint.absolute())
    try:
        return Program(words, environment)
    except OSError as error:
        raise ProgramFailedError(Failure("error", f"{words[0]} cannot be started: {error.strerror}")) from error


def follow(
    program: Program, trial: RunContext, objective: Objective, reporter: Reporter, said: Callable[[], str]
) -> TrainState | None:
    """Fires the events of a program's lines on a trial until the program has ended.

    A program that is told to stop, or to pause, gets SIGTERM. What it then trains counts no more, but a checkpoint
    that it writes does.

    Args:
        program: The program.
        trial: Whose events are fired.
        objective: What is optimised.
        reporter: Knows whether the trial is to stop while the program says nothing.
        said: Returns what the program printed last.

    Returns:
        The state at its end; None if it said nothing.

    Raises:
        ProgramFailedError: Its exit code says that it failed.
        ProgramLostError: A signal killed it.
        Pause: It was told to pause, and has ended.
        ValueError: It wrote what is no line.
    """
    lines = Lines(trial, objective, reporter.unreported.note)
    asking = _Asking(program, reporter)
    paused: Pause | None = None
    while True:
        code = program.exit_code
        taken, program.lines = program.lines, []
        for line in taken:
            try:
                lines.take(line)
            except Pause as pause:
                paused = pause
                lines.state.should_stop = True
        reporter.look(lines.state)
        if code is not None:
            break
        if lines.state.should_stop:
            asking.look()
        try:
            program.wait(_LOOK_S)
        except KeyboardInterrupt:  # a terminal sends it to the program too
            program.wait_for_exit(_LAST_S)
            raise
    _check_exit(code, lines.state.should_stop, said)
    if paused is not None:
        raise paused
    if lines.begun:
        lines.end()
    return lines.state if lines.begun else None


class _Asking:
    """Asks a program to stop, once; one that has trained all it is to train may end by itself before."""

    def __init__(self, program: Program, reporter: Reporter) -> None:
        self._program, self._reporter = program, reporter
        self._at: float | None = None

    def look(self) -> None:
        """Asks it, where it is time to; called every now and then from when it is to stop."""
        if self._at is None:
            request = self._reporter.stopping.request
            over = request is not None and request.status == "completed"
            self._at = time.monotonic() + (_LAST_S if over else 0.0)
        if time.monotonic() >= self._at:
            self._at = math.inf
            self._program.ask_to_stop()


def _check_exit(code: int, stopped: bool, said: Callable[[], str]) -> None:
    """Raises where an exit code says that the program failed."""
    if code == 0 or (stopped and code in _STOPPED):
        return
    if code < 0:
        raise ProgramLostError(-code)
    raise ProgramFailedError(_failure(code, said(), stopped))


def _failure(code: int, said: str, stopped: bool, when: str = "") -> Failure:
    """How a program failed: by its exit code, and the last error that it printed, or else its last words."""
    said_lines = said.splitlines()
    quoted = (_ERROR.findall(said) or [line for line in said_lines if re.search(r"\w", line)])[-1:]
    asked = ", after it was asked to stop" if stopped else ""
    printed = f"; it printed {quoted[0]!r:.300}" if quoted else ""
    error = f"the program ended{when} with exit code {code}{asked}{printed}"
    return Failure("error", error, "\n".join(said_lines[-_SHOWN_LINES:]))


class _Relay:
    """Passes on what a program that runs its trial itself says, until it has exited."""

    def __init__(self, task: Task, assignment: Assignment, link: Link, program: Program) -> None:
        self._task, self._assignment, self._link, self._program = task, assignment, link, program
        self._last: Progress = Heartbeat(**assignment.sender)
        self._ended: tuple[Ended, list[Row]] | None = None
        self._open = True
        self._stopped = assignment.stop is not None

    def run(self, channel: Channel, damaged: Mapping[int, str]) -> Ended:
        """Gives the program its trial, and tells how it ended.

        Args:
            channel: To the program.
            damaged: Checkpoints that were found to be damaged.

        Raises:
            ProgramLostError: A signal killed it before it told its end.
        """
        interrupted = False
        until = math.inf
        _tell(channel, (portable(self._task), self._assignment, damaged))
        while self._program.exit_code is None or self._open:
            self._pass_on(channel)
            if until == math.inf and self._program.exit_code is not None:
                until = time.monotonic() + _LAST_S
            if self._open and time.monotonic() >= until:
                break
            if (request := self._link.stop_request()) is not None:
                self._stopped = True
                _tell(channel, request) if self._open else self._program.ask_to_stop()
            try:
                self._program.wait(_LOOK_S)
            except KeyboardInterrupt:  # a terminal sends it to the program too
                if interrupted:
                    raise
                interrupted = True
        ended, rows = self._end(self._program.wait_for_exit(0.0))
        self._link.tell(ended, rows)
        if interrupted:
            raise KeyboardInterrupt
        return ended

    def _pass_on(self, channel: Channel) -> None:
        """Passes on what has come."""
        try:
            while self._open and (received := channel.get(0)) is not None:
                message, rows = received
                if isinstance(message, Ended):
                    self._ended = message, rows
                    continue
                if isinstance(message, Progress):
                    self._last = message
                if isinstance(message, DecisionDue):
                    if (request := self._link.ask(message, rows)) is not None:
                        self._stopped = True
                        _tell(channel, request)
                    _tell(channel, TRAIN_ON)
                else:
                    self._link.tell(message, rows)
        except EOFError:  # the process that had the trial is gone; what started it may have more to do
            self._open = False
            self._program.hang_up()

    def _end(self, code: int) -> tuple[Ended, list[Row]]:
        """What the program told of its end, unless it failed after that, or told none."""
        ended, rows = self._ended or (None, [])
        if ended is not None and (code <= 0 or ended.status in ("failed", "paused")):
            return ended, rows
        if code < 0:
            raise ProgramLostError(-code)
        when = " before its trial did" if ended is None else ""
        failure = _failure(code, _said(self._task, self._assignment), self._stopped, when)
        if ended is not None:
            return dataclasses.replace(
                ended, status="failed", reason=failure.error, failure=failure, due=False
            ), rows
        return Ended(**nothing_new(self._last), status="failed", reason=failure.error, failure=failure), rows


def _tell(channel: Channel, said: object) -> None:
    with contextlib.suppress(OSError):  # it is gone, which is noticed where it is read
        channel.put(said)
        channel.flush()


def _said(task: Task, assignment: Assignment) -> str:
    return last_lines(Path(task.sweep_dir) / file_of(assignment.trial), _SEARCHED_LINES)
