"""The process of a trial, from its start to its exit."""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from xaytune.messages import (
    Assignment,
    Ended,
    Heartbeat,
    Message,
    Progress,
    Refused,
    Task,
    nothing_new,
)
from xaytune.records.history import Row
from xaytune.sweep.command import Command
from xaytune.sweep.options import reference_name
from xaytune.trial.common.channel import Channel
from xaytune.trial.common.link import EXITING, ChannelLink
from xaytune.trial.common.output import file_of, flush_output, redirect_output
from xaytune.trial.process.imports import Imports, installed_since
from xaytune.trial.process.start_watch import StartWatch


class ActorLink(ChannelLink):
    """The way to the driver through the actor, which the trial tells more at its end.

    Args:
        channel: To the actor.
        watch: Watches it until it trains.
        threads_s: Seconds that threads of the recipe are waited for.
    """

    def __init__(self, channel: Channel, watch: StartWatch, threads_s: float) -> None:
        super().__init__(channel)
        self._watch, self._threads_s = watch, threads_s
        self._begun_with = len(sys.modules), dict(os.environ)

    def tell(self, message: Message, rows: Sequence[Row]) -> None:
        """Sends a message; the last one says too what the recipe imported, and how long its start took.

        That comes when the recipe's threads have ended: nothing of the process is needed after it. What was
        trained is told before, which a loss of the process or of the node then does not undo.
        """
        if isinstance(message, Ended):
            if _threads():
                trained = {field.name: getattr(message, field.name) for field in dataclasses.fields(Progress)}
                super().tell(Heartbeat(**trained), rows)
                self._channel.flush()
                message, rows = dataclasses.replace(message, **nothing_new(message)), []
            left = end_threads(self._threads_s)
            cut_off = (
                f"a trial ended {self._threads_s:g} s after its recipe, whose threads still ran "
                f"({', '.join(left)}): let the recipe wait for them"
            )
            self._channel.put(installed_since(*self._begun_with))
            notes = (*message.notes, cut_off) if left else message.notes
            message = dataclasses.replace(message, start=self._watch.start, notes=notes)
        super().tell(message, rows)


def end_threads(timeout: float) -> list[str]:
    """Waits for the threads of this process, as the end of a script does, and ends those of idle executors.

    Args:
        timeout: Seconds.

    Returns:
        The names of those that still run.
    """
    deadline = time.monotonic() + timeout
    if _threads():
        threading.Thread(target=_end_executors, daemon=True).start()
    while (threads := _threads()) and (left := deadline - time.monotonic()) > 0:
        threads[0].join(left)
    return [thread.name for thread in threads]


def _threads() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if not one.daemon and one is not threading.main_thread()]


def _end_executors() -> None:
    """Does what the end of a script does before it waits for threads: idle ones of executors then end."""
    for end in reversed(threading._threading_atexits):  # type: ignore[attr-defined]
        end()


def name_program(task: Task) -> None:
    """Makes the command line that of the recipe, and of nothing else: a script's options have their defaults."""
    sys.argv[:] = [reference_name(task.recipe).partition(":")[0]]


def be_trial(channel: Channel, imports: Imports, begun_with: Mapping[str, str]) -> NoReturn:
    """Trains the trial that the actor assigns, and exits.

    Args:
        channel: To the actor.
        imports: What is imported already.
        begun_with: The environment that this process was started in: what was changed since, modules did.
    """
    output = None
    try:
        # Without an assignment it is the process of many trials; the environment is the actor's.
        task, assignment, environment = channel.get(None)
        name = f"output/fused-{os.getpid()}.txt" if assignment is None else file_of(assignment.trial)
        output = Path(task.sweep_dir) / name
        redirect_output(output)
        os.environ.update({name: value for name, value in environment.items() if begun_with.get(name) != value})
        _let_ray_read_the_environment()
        if assignment is None:
            _train_fused(channel, imports, task)
        else:
            _train(channel, imports, task, assignment)
    except (EOFError, BrokenPipeError, ConnectionError):
        os._exit(1)  # the actor is gone
    except BaseException:
        traceback.print_exc()
        os._exit(70)
    with contextlib.suppress(BaseException):
        atexit._run_exitfuncs()
    flush_output(output)
    with contextlib.suppress(OSError):
        channel.put(EXITING)
    os._exit(0)


def _let_ray_read_the_environment() -> None:
    """Lets Ray read what it read once, where a module imported it: how the sweep's Ray takes tokens, say."""
    config = getattr(sys.modules.get("ray._raylet"), "Config", None)
    if config is not None:
        config.initialize("")


def _train(channel: Channel, imports: Imports, task: Task, assignment: Assignment) -> None:
    watch = StartWatch()
    imports.load()
    if imports.problems:
        message = Refused(**assignment.sender, problems=tuple(imports.problems))
        channel.put((message, []))
        channel.flush()
        return

    from xaytune.trainer.callbacks import metrics_only
    from xaytune.trial.program.command_run import CommandRun
    from xaytune.trial.run.failures import ProgramLostError
    from xaytune.trial.run.runner import RecipeRun

    link = ActorLink(channel, watch, task.threads_s)
    if not isinstance(task.recipe, Command):
        run = RecipeRun(task, assignment, link, imports.shared)
        run.callbacks.on("train_start")(metrics_only(lambda state: watch.end()))
        run.run()
        return
    watch.end()  # what a program does before it trains is its own
    try:
        CommandRun(task, assignment, link).run()
    except ProgramLostError as lost:  # the actor sees how this process ends
        if lost.signal != signal.SIGKILL:  # which has no handler
            signal.signal(lost.signal, signal.SIG_DFL)
        os.kill(os.getpid(), lost.signal)


def _train_fused(channel: Channel, imports: Imports, task: Task) -> None:
    imports.load()

    from xaytune.trial.process.fused_process import FusedProcess

    FusedProcess(channel, task, imports).run()
    end_threads(task.threads_s)
