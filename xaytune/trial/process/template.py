"""The template process of a node: it has imported what trials need, and is forked for each of them.

It is single-threaded, trains nothing, and ends when nobody is connected to it any more. It keeps a process ready
for the next trial: a fork. With ``XAYTUNE_START_METHOD=spawn``, and where a fork is not safe, the template imports
nothing, and that is a new process, which imports ahead of its turn.
"""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import selectors
import signal
import socket
import sys
import time
from collections.abc import Iterator
from typing import NoReturn

from xaytune.trial.common import kernel
from xaytune.trial.common.channel import Channel
from xaytune.trial.common.launching import launch
from xaytune.trial.common.link import Imported
from xaytune.trial.common.output import DUMP_STACKS, make_readable, report_stacks
from xaytune.trial.process.imports import Imports, import_installed, unforkable
from xaytune.trial.process.trial_process import be_trial, name_program

# Seconds that it waits for another connection: an actor that was lost is replaced by one that may use it.
_ALONE_S = 3.0
# Seconds between two looks whether a trial that is to be killed has written where it is, and until it is killed.
_LOOK_S = 0.05
_DUMP_S = 1.0


def main() -> NoReturn:
    """Is the template, or a process that it keeps ready; see :func:`xaytune.trial.common.launching.launch`."""
    role, first, *others = sys.argv[1:]  # the descriptors that it was started with
    if role == "template" and len(others) == 1:  # not begun anew
        kernel.leave_parent()
    boot = sys.stdin.buffer.read()
    imports = Imports(pickle.loads(boot))
    begun_with = dict(os.environ)
    os.environ.pop("GLIBC_TUNABLES", None)  # it has done its work
    make_readable(sys.stdout, sys.stderr)
    report_stacks()
    name_program(imports.task)
    if role == "trial":
        _be_ready(Channel(socket.socket(fileno=int(first))), imports, begun_with)
    lifeline, *postponed = others
    reasons = dict(argument.split("=", 1) for argument in postponed)
    if _forks():
        with kernel.killed_when_alone(int(lifeline)):
            imports.load({*imports.by_value, *reasons}, _once_for_all)
    template = _Template(imports, begun_with, boot, [imports.note(*reason) for reason in reasons.items()])
    template.serve(socket.socket(fileno=int(first)), Channel(socket.socket(fileno=int(lifeline))))
    os._exit(0)


def _forks() -> bool:
    return os.environ.get("XAYTUNE_START_METHOD") != "spawn"


@contextlib.contextmanager
def _once_for_all(name: str) -> Iterator[None]:
    """A context to load one of the imports in; if this process cannot be forked then, it begins anew without it.

    Modules stay. The garbage collector would look at them again and again, which is a fifth of the time that
    imports take, and in forks, which would copy what they look at. A setup works with data: that is collected.
    """
    before = gc.get_threshold()
    if name != "setup":
        gc.set_threshold(0)  # which leaves it to the modules whether it is on at all
    yield
    if gc.get_threshold()[0] == 0:
        gc.set_threshold(*before)
    if name not in ("torch", "trial"):  # a module may drop data that it has made
        gc.collect()
    gc.freeze()
    reason = unforkable()
    if reason is not None:
        os.lseek(0, 0, os.SEEK_SET)
        os.execv(sys.executable, [*sys.orig_argv, f"{name}={reason}"])


def _be_ready(turn: Channel, imports: Imports, begun_with: dict[str, str]) -> NoReturn:
    """Imports everything, and waits for its turn."""
    _be_of_its_own(os.getppid())
    imports.load()
    _wait_for_turn(turn, imports, begun_with)


def _wait_for_turn(turn: Channel, imports: Imports, begun_with: dict[str, str]) -> NoReturn:
    """Becomes the trial of the channel that the template gives."""
    try:
        turn.get(None)
    except EOFError:
        os._exit(0)
    channel = Channel(socket.socket(fileno=turn.take_descriptor()))
    turn.close()
    be_trial(channel, imports, begun_with)


def _be_of_its_own(template: int) -> None:
    """Makes this the process of a trial: all that it starts ends with it, and it with the template."""
    with contextlib.suppress(PermissionError):  # it leads a session already
        os.setsid()
    kernel.die_with_parent(template)
    kernel.adopt_orphans()
    kernel.be_killed_first()


class _Template:
    """Starts, kills and waits for the processes of trials, one at a time for each connection.

    Args:
        imports: What is imported.
        begun_with: The environment that this process was started in.
        boot: What a new process is started with, where trials are not forked.
        notes: What to tell of how trials are started.
    """

    def __init__(self, imports: Imports, begun_with: dict[str, str], boot: bytes, notes: list[str]) -> None:
        self._imports, self._begun_with, self._boot, self._notes = imports, begun_with, boot, tuple(notes)
        self._pid = os.getpid()
        self._trials: dict[Channel, int] = {}  # pids by the connection that asked for them; 0 is none
        self._ready: list[tuple[int, Channel]] = []  # that wait for their turn, with the channels to them
        self._ended: list[tuple[Channel, int, int, bool]] = []  # ends that are not reported yet
        self._own: set[int] = set()  # what modules have started
        self._to_import: list[Imported] = []  # by trials, before the next one starts
        self._tried: set[tuple[str, ...]] = set()  # with the variables that their trial has changed
        self._oom_kills = kernel.oom_kills()
        self._selector = selectors.PollSelector()
        self._wakeup = socket.socketpair()

    def serve(self, listener: socket.socket, lifeline: Channel) -> None:
        """Serves until nobody is connected any more.

        Args:
            listener: Where actors connect.
            lifeline: To whoever started this process.
        """
        kernel.adopt_orphans()
        self._own = kernel.children()
        for end in (listener, *self._wakeup):
            end.setblocking(False)
        self._handler = signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(self._wakeup[1].fileno(), warn_on_full_buffer=False)
        self._selector.register(listener, selectors.EVENT_READ, lambda: self._accept(listener))
        self._selector.register(self._wakeup[0], selectors.EVENT_READ, lambda: self._wakeup[0].recv(4096))
        self._connect(lifeline)
        self._ready.append(self._launch())
        while True:
            events = self._selector.select(None if self._trials else _ALONE_S)
            if not events and not self._trials:
                return
            for key, _ in events:
                with contextlib.suppress(BlockingIOError):
                    key.data()
            self._reap()

    def _accept(self, listener: socket.socket) -> None:
        end, _ = listener.accept()
        if kernel.is_ours(end):
            self._connect(Channel(end))
        else:
            end.close()

    def _connect(self, connection: Channel) -> None:
        self._trials[connection] = 0
        self._selector.register(connection, selectors.EVENT_READ, lambda: self._listen(connection))

    def _listen(self, connection: Channel) -> None:
        """Does what a connection asks for, if it is there still: another event of the round may have ended it."""
        try:
            while connection in self._trials and (request := connection.get(0)) is not None:
                kind, content = request
                if kind == "start":
                    self._start(connection, connection.take_descriptor())
                elif kind == "kill":
                    self._kill(self._trials[connection])
                elif kind == "imported":
                    # Of trials that set the same variables, the next would be refused as this one.
                    tried = {(name, *sorted(content.changed)) for name in content.names}
                    if not self._tried.issuperset(tried):
                        self._to_import.append(content)
                        self._tried |= tried
                elif kind == "end":
                    self._end()
        except (OSError, EOFError):
            self._disconnect(connection)

    def _disconnect(self, connection: Channel) -> None:
        self._selector.unregister(connection)
        self._kill(self._trials.pop(connection))
        connection.close()

    def _start(self, connection: Channel, descriptor: int) -> None:
        """Starts the process of a trial.

        Args:
            connection: The one that asks for it.
            descriptor: The trial's end of its channel to the actor.
        """
        error: str | None = None
        try:
            self._import_for_next()
            if not any(self._trials.values()):
                self._oom_kills = kernel.oom_kills()  # those before are not of this trial
            self._trials[connection] = self._let_begin(descriptor)
        except OSError as short:  # the machine is, of memory or processes
            error = str(short)
        finally:
            os.close(descriptor)
        connection.put(("started", self._trials[connection], self._notes, error))
        with contextlib.suppress(OSError):  # there is no room for a process ahead of its turn
            self._ready.append(self._launch())

    def _let_begin(self, descriptor: int) -> int:
        """Lets a process become a trial, and returns its pid: the one that is ready, or a new one."""
        while True:
            was_ready = bool(self._ready)
            pid, turn = self._ready.pop() if was_ready else self._launch()
            with contextlib.closing(turn):
                try:
                    turn.put("begin", descriptor)
                except BrokenPipeError:  # it was killed
                    if not was_ready:
                        raise
                else:
                    return pid

    def _import_for_next(self) -> None:
        """Imports what trials have imported; a process that was made ready before lacks it."""
        if not _forks() or not self._to_import:
            return
        self._end_ready()
        for imported in self._to_import:
            import_installed(imported)
        self._to_import.clear()

    def _launch(self) -> tuple[int, Channel]:
        """Starts a process, which waits for its turn to be a trial; returns its pid, and the channel to it."""
        here, there = socket.socketpair()
        with there:
            if not _forks():
                process = launch("trial", [there.fileno()], self._boot, self._begun_with, sys.stderr.fileno())
                process.returncode = 0  # it is waited for here, as all are
                return process.pid, Channel(here)
            pid = os.fork()
            if pid == 0:
                here.close()
                self._become_trial(Channel(there))
        return pid, Channel(here)

    def _become_trial(self, turn: Channel) -> NoReturn:
        try:
            _be_of_its_own(self._pid)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, self._handler)
            for key in list(self._selector.get_map().values()):
                key.fileobj.close()  # type: ignore[union-attr]
            self._wakeup[1].close()
            _wait_for_turn(turn, self._imports, self._begun_with)
        finally:
            os._exit(70)

    def _reap(self) -> None:
        """Takes in which processes have ended, and ends what they have left."""
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                self._take_end(*ended)
        kept = {*self._own, *self._trials.values(), *(pid for pid, _ in self._ready)}
        left = kernel.children() - kept
        for pid in left:
            kernel.kill_group(pid)
        if not left:  # else again when they are gone
            self._tell_ends()

    def _take_end(self, pid: int, status: int) -> None:
        self._ready = [one for one in self._ready if one[0] != pid]
        for connection in [connection for connection, trial in self._trials.items() if trial == pid]:
            self._trials[connection] = 0
            killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
            by_kernel = killed and kernel.oom_kills() > self._oom_kills
            self._oom_kills += by_kernel
            self._ended.append((connection, pid, status, by_kernel))

    def _tell_ends(self) -> None:
        for connection, *ended in self._ended:
            if connection in self._trials:
                with contextlib.suppress(OSError):
                    connection.put(("ended", *ended))
        self._ended = []

    def _kill(self, pid: int) -> None:
        """Kills a trial, if there is one, and its children."""
        if pid:
            with contextlib.suppress(OSError):
                os.kill(pid, DUMP_STACKS)
                deadline = time.monotonic() + _DUMP_S
                time.sleep(_LOOK_S)
                while not kernel.has_handled(pid, DUMP_STACKS) and time.monotonic() < deadline:
                    time.sleep(_LOOK_S)
            kernel.kill_group(pid)

    def _end_ready(self) -> None:
        for pid, turn in self._ready:
            turn.close()
            kernel.kill_group(pid)
        self._ready = []

    def _end(self) -> NoReturn:
        for pid in self._trials.values():
            self._kill(pid)
        self._end_ready()
        os._exit(0)
