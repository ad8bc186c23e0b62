"""What Linux does for processes: children that end with their parent, orphans, threads, memory."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import re
import resource
import select
import signal
import socket
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_F_SETSIG = 10


def die_with_parent(parent: int) -> None:
    """Lets this process be killed when its parent ends.

    Args:
        parent: The parent's pid: it may have ended already.
    """
    _libc().prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def leave_parent() -> None:
    """Continues in a process that is no descendant of whoever started this one; this one ends as that does.

    What is sent to all descendants of a process, as Ray stops a job, does not reach it; and Ray kills the children
    of an actor that ends, but not theirs. What it leaves behind when it is killed, a third process kills.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        if os.fork() != 0:
            os._exit(0)
        os.close(reading)
        _continue_watched(writing)
        return
    os.close(writing)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.waitpid(child, 0)
    _keep_open_only(reading)
    told = os.read(0, 16)
    code = int(told) if told else -signal.SIGKILL
    if code < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def _continue_watched(writing: int) -> None:
    """Continues in a child. This process writes the child's exit code into a pipe, and kills what it leaves."""
    pid = os.fork()
    if pid == 0:
        os.close(writing)
        return
    _keep_open_only(writing)
    adopt_orphans()
    _, status = os.waitpid(pid, 0)
    while left := children():
        for orphan in left:
            kill_group(orphan)
        os.wait()
    os.write(0, str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def _keep_open_only(descriptor: int) -> None:
    """Makes a descriptor the first one, and closes all others."""
    os.dup2(descriptor, 0)
    # Not up to the limit, which may be a billion.
    os.closerange(1, max(map(int, os.listdir("/proc/self/fd"))) + 1)


def adopt_orphans() -> None:
    """Makes this process the parent of what its descendants leave behind, sessions of their own included."""
    _libc().prctl(_PR_SET_CHILD_SUBREAPER, 1)


def be_killed_first() -> None:
    """Where memory runs out, the kernel is to end this process, not the driver."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def kill_group(leader: int) -> None:
    """Kills a process, and the group that it leads, if it leads one."""
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(OSError):
            kill(leader, signal.SIGKILL)


def has_handled(pid: int, number: int) -> bool:
    """Whether a process has handled a signal that it was sent, to the end, or is gone."""
    with contextlib.suppress(OSError):
        status = Path(f"/proc/{pid}/status").read_text()
        masks = re.findall(r"^(?:SigPnd|ShdPnd|SigBlk):\s*(\w+)$", status, re.MULTILINE)
        return not any(int(mask, 16) >> (number - 1) & 1 for mask in masks)
    return True


def children() -> set[int]:
    """Returns the pids of this process's children."""
    with contextlib.suppress(OSError):
        tasks = Path("/proc/self/task").iterdir()
        return {int(pid) for task in tasks for pid in (task / "children").read_text().split()}
    return set()


def count_threads() -> int:
    """Counts the threads that a fork of this process would lack, and the one that calls this.

    Those that their libraries end and start again around a fork do not count: OpenBLAS's, which are gone after one
    until they are needed, and jemalloc's.
    """
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    try:
        return sum(_name(task) != "jemalloc_bg_thd" for task in Path("/proc/self/task").iterdir())
    except OSError:
        return 1


def _name(task: Path) -> str:
    return (task / "comm").read_text().strip()


def oom_kills() -> int:
    """Returns how many processes of this control group the kernel has killed for want of memory so far."""
    files = [group / name for group in _memory_groups() for name in ("memory.events", "memory.oom_control")]
    for file in (*files, Path("/proc/vmstat")):
        with contextlib.suppress(OSError):
            found = re.search(r"^oom_kill (\d+)", file.read_text(), re.MULTILINE)
            if found is not None:
                return int(found[1])
    return 0


def memory_left(groups: Sequence[Path] | None = None) -> list[int]:
    """Returns how many bytes control groups may take yet, of those that have a limit.

    Pages of files that were not read lately do not count as taken.

    Args:
        groups: Their folders; those of this process, if none are given.
    """
    left = []
    for group in _memory_groups() if groups is None else groups:
        for most, taken in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
            with contextlib.suppress(OSError, ValueError):  # no such file, or "max", which is no limit
                files = re.search(r"^inactive_file (\d+)", (group / "memory.stat").read_text(), re.MULTILINE)
                most_bytes, taken_bytes = (int((group / name).read_text()) for name in (most, taken))
                left.append(max(0, most_bytes - taken_bytes + (int(files[1]) if files is not None else 0)))
    return left


def _memory_groups() -> list[Path]:
    """Returns the folders of the control groups that this process's memory is counted in."""
    groups: list[str] = []
    with contextlib.suppress(OSError):
        groups = Path("/proc/self/cgroup").read_text().splitlines()
    found = []
    for _, controllers, path in (group.split(":", 2) for group in groups):
        if not controllers:
            found.append(Path(f"/sys/fs/cgroup{path}"))
        elif controllers == "memory":
            found.append(Path(f"/sys/fs/cgroup/memory{path}"))
    return found


def is_ours(end: socket.socket) -> bool:
    """Whether the other end of a local socket is of this user: a request is trusted."""
    _, uid, _ = struct.unpack("3i", end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return bool(uid == os.getuid())


def namespace() -> int:
    """Returns what tells processes that see the same files: containers have a number of their own."""
    return os.stat("/proc/self/ns/mnt").st_ino


def flush_c_streams() -> None:
    """Writes out what C code has printed."""
    ctypes.CDLL(None).fflush(None)


@contextlib.contextmanager
def killed_when_alone(fd: int) -> Iterator[None]:
    """A context in which the kernel kills this process when the other end of a socket is closed, or says anything.

    Code that hangs with the interpreter's lock held can neither notice that itself nor handle a signal.
    """
    before = fcntl.fcntl(fd, fcntl.F_GETFL)
    fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(fd, _F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(fd, fcntl.F_SETFL, before | os.O_ASYNC)
    if select.select([fd], [], [], 0)[0]:  # it was closed before, of which no signal comes
        os.kill(os.getpid(), signal.SIGKILL)
    try:
        yield
    finally:
        fcntl.fcntl(fd, fcntl.F_SETFL, before)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
