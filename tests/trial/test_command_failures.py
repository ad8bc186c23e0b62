"""What is said of a program that failed."""

from __future__ import annotations

import itertools
import os
import select
import socket
import sys
import threading
from pathlib import Path

import pytest

from tests.trial.test_commands import command_run, run_alone
from xaytune.sweep.objective import Objective
from xaytune.testing.training import JudgedRun
from xaytune.trainer.checkpoint_files import list_checkpoints, step_of
from xaytune.trial.common.channel import ADDRESS
from xaytune.trial.common.output import file_of
from xaytune.trial.program.joining import current_trial
from xaytune.trial.program.lines import Lines


def test_the_exit_code_of_a_program_says_whether_it_failed(tmp_path: Path) -> None:
    line = '{{"epoch": 1, "score": 1}}'
    ended = run_alone(tmp_path, f"sh -c 'echo \"$0\" >&$XAYTUNE_FD; exit 3' '{line}'")
    assert (ended.status, ended.reason, ended.epoch) == ("failed", "the program ended with exit code 3", 1)


@pytest.mark.parametrize(
    ("printed", "quoted"),
    [
        ("begins\nno such data", "no such data"),
        ("  raise it\nValueError: no data\nmain.ChildFailedError: \nhost: here\n====", "ValueError: no data"),
        ("[rank0]: KeyError: 'lr'\nmain.ChildFailedError: \nhost: here\n====", "KeyError: 'lr'"),
        ("ConnectionError: no answer, once more\nfatal: the disk is full", "fatal: the disk is full"),
        ("it failed\n====", "it failed"),
    ],
)
def test_a_program_that_failed_is_quoted_with_its_error_or_its_last_words(
    tmp_path: Path, printed: str, quoted: str
) -> None:
    output = tmp_path / "run-sweep" / file_of(0)
    output.parent.mkdir(parents=True)
    ended = run_alone(tmp_path, f"sh -c 'echo \"$0\" >{output}; exit 3' {{printed}}", {"printed": printed})
    assert ended.reason == f"the program ended with exit code 3; it printed {quoted!r}"


STOPPED = {
    "lines": 'sh -c \'trap "exit 3" TERM; echo "$0" >&$XAYTUNE_FD; while :; do sleep 0.05; done\''
    ' \'{{"epoch": 1, "score": 1}}\'',
    "trial": f"{sys.executable} -c 'import sys, xaytune; t = xaytune.current_trial(); e = t.epochs(9);"
    " [t.log(score=1) for _ in e]; sys.exit(3)'",
}


@pytest.mark.parametrize("way", ["lines", pytest.param("trial", marks=pytest.mark.slow)])
def test_a_program_that_fails_once_it_was_asked_to_stop_is_said_to_have_done_so(tmp_path: Path, way: str) -> None:
    ended = command_run(JudgedRun(tmp_path / "run", stop_at=1), STOPPED[way], {}).run()
    assert ended.reason == "the program ended with exit code 3, after it was asked to stop"


def test_a_checkpoint_that_cannot_be_copied_fails_its_trial_and_says_why(tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    saved.mkdir()
    os.mkfifo(saved / "queue")
    line = f'{{{{"epoch": 1, "score": 1, "checkpoint": "{saved}"}}}}'
    ended = run_alone(tmp_path, f"sh -c 'echo \"$0\" >&$XAYTUNE_FD' '{line}'")
    assert ended.failure is not None
    assert "queue cannot be copied" in ended.failure.error
    assert "is a named pipe" in ended.failure.error


def test_a_checkpoint_that_is_written_to_while_it_is_copied_is_left_out_with_a_note(tmp_path: Path) -> None:
    saved, notes, over = tmp_path / "saved", list[str](), threading.Event()
    saved.write_bytes(bytes(1 << 24))

    def write() -> None:
        with saved.open("r+b") as file:
            while not over.is_set():
                file.write(b"1")
                file.flush()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        lines = Lines(JudgedRun(tmp_path / "run"), Objective("score", "max"), notes.append)
        for epoch in itertools.count(1):
            lines.take(b'{"epoch": %d, "checkpoint": "%s"}' % (epoch, os.fsencode(saved)))
            if notes:
                break
    finally:
        over.set()
        writer.join()
    assert "was written to while it was copied" in notes[0]
    assert all(step_of(path) < epoch for path in list_checkpoints(tmp_path / "run"))


def test_a_program_that_comes_too_late_for_its_trial_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"\0xaytune-test-{os.getpid()}")
    listener.listen(1)
    monkeypatch.setenv(ADDRESS, f"@xaytune-test-{os.getpid()}")

    def close() -> None:
        select.select([listener], [], [])  # it has connected, and another has the trial
        listener.close()

    closing = threading.Thread(target=close)
    closing.start()
    with pytest.raises(RuntimeError, match="belongs to another process"):
        current_trial()
    closing.join()
