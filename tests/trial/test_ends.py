"""However a trial ends, that is told as what it is; and all that it says is in its output."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.trial.conftest import Node

pytestmark = pytest.mark.slow


def test_all_that_a_trial_says_is_in_its_output(node: Node, tmp_path: Path) -> None:
    output = node.train(tmp_path, "says").output
    for line in (
        "by print, in greek: \u03b1",
        "to stderr",
        "INFO by a handler of the module's",
        "by a child",
        "by a child that was given stdout",
        "to the descriptor",
        "by C code",
        "bytes",
        "UserWarning: a warning",
        "encoding utf-8 terminal False",
    ):
        assert line in output


def test_a_handler_may_write_to_the_folder_of_checkpoints_until_the_end(node: Node, tmp_path: Path) -> None:
    assert node.train(tmp_path, "writes_where_it_ends").ended.status == "completed"
    assert [path.name for path in tmp_path.glob("checkpoints/*/*")] == ["best.pt"]


def test_what_threads_of_a_recipe_write_when_it_has_returned_is_there(node: Node, tmp_path: Path) -> None:
    outcome = node.train(tmp_path, "writes_in_threads")
    assert (outcome.ended.status, outcome.ended.notes) == ("completed", ())
    assert [(tmp_path / name).read_text() for name in ("by a thread", "by an executor")] == ["written"] * 2


def test_threads_that_end_are_waited_for_no_longer_than_they_run() -> None:
    program = """
import os, threading, time
from concurrent.futures import ThreadPoolExecutor
from xaytune.trial.process.trial_process import end_threads
threading.Thread(target=time.sleep, args=(0.1,)).start()
ThreadPoolExecutor().submit(time.sleep, 0)
print(end_threads(3600), flush=True)
os._exit(0)
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60)
    assert ran.stdout == b"[]\n"


def test_a_thread_that_never_ends_is_not_waited_for_longer_than_given_and_is_named() -> None:
    program = """
import os, threading
from xaytune.trial.process.trial_process import end_threads
threading.Thread(target=threading.Event().wait, name="endless").start()
print(end_threads(0.1), flush=True)
os._exit(0)
"""
    assert subprocess.run([sys.executable, "-c", program], capture_output=True).stdout == b"['endless']\n"


def test_a_trial_that_says_nothing_leaves_no_file(node: Node, tmp_path: Path) -> None:
    node.train(tmp_path)
    assert list((tmp_path / "output").iterdir()) == []


@pytest.mark.parametrize("way", ["sys.exit(0)", "sys.exit()"])
def test_a_program_that_exits_with_success_has_completed(node: Node, tmp_path: Path, way: str) -> None:
    ended = node.train(tmp_path, "ends", {"way": way}).ended
    assert (ended.status, ended.reason, ended.epoch) == ("completed", None, 3)
    assert ended.best is not None
    assert ended.best.value == 3.0


@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize(
    ("way", "kind", "reason"),
    [
        ("sys.exit(3)", "error", "exit code 3 (SystemExit)"),
        ("sys.exit(text)", "error", "SystemExit: there is no data"),
        ("os._exit(0)", "error", "its process ended before the recipe did: exit code 0"),
        ("os._exit(3)", "error", "its process ended before the recipe did: exit code 3"),
        ("SIGTERM", "lost", "its process ended before the recipe did: killed by SIGTERM"),
        ("SIGKILL", "lost", "its process ended before the recipe did: killed by SIGKILL"),
        ("KeyboardInterrupt", "error", "KeyboardInterrupt"),
        ("GeneratorExit", "error", "GeneratorExit"),
        ("wordless", "error", "WordlessError"),
        ("its own cause", "error", "ValueError"),
        ("breakpoint", "error", "`xaytune try`"),
        ("input", "error", "`xaytune try`"),
        ("memory", "infeasible", "out of memory: RuntimeError"),
    ],
)
def test_an_end_is_told_as_what_it_is(
    node: Node, tmp_path: Path, way: str, kind: str, reason: str, trained: bool
) -> None:
    ended = node.train(tmp_path, "ends", {"way": way, "trained": trained}).ended
    assert ended.status == "failed"
    assert ended.failure is not None
    assert ended.failure.kind == kind
    assert reason in str(ended.reason)


def test_a_breakpoint_says_that_there_is_no_terminal_also_where_ray_has_set_its_debugger(
    new_node: Callable[..., Node], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONBREAKPOINT", "ray.util.rpdb._driver_set_trace")  # as ray.init() does
    ended = new_node().train(tmp_path, "ends", {"way": "breakpoint"}).ended
    assert "`xaytune try`" in str(ended.reason)


@pytest.mark.parametrize("way", ["SIGSEGV", "abort"])
def test_a_crash_leaves_its_stack_in_the_output_and_in_the_failure(node: Node, tmp_path: Path, way: str) -> None:
    outcome = node.train(tmp_path, "ends", {"way": way})
    assert outcome.ended.failure is not None
    assert "in ends\n" in outcome.output
    assert "in ends\n" in outcome.ended.failure.traceback + "\n"


def test_a_parser_that_refuses_its_arguments_has_its_last_line_in_the_reason(node: Node, tmp_path: Path) -> None:
    ended = node.train(tmp_path, "parses_arguments", {"required": True}).ended
    assert "the following arguments are required: --data" in str(ended.reason)


@pytest.mark.parametrize("raises", [True, False])
def test_a_metric_that_cannot_be_read_fails_its_trial_with_what_can_be(
    node: Node, tmp_path: Path, raises: bool
) -> None:
    ended = node.train(tmp_path, "unreadable_metric", {"raises": raises}).ended
    assert ended.failure is not None
    assert ended.failure.kind == "error"
    assert ("device-side assert triggered" in str(ended.reason)) == raises
    assert ended.metrics == {"score": 1.0}
    assert ended.global_step == 1
