"""What a trial finds in its process, and what becomes of what it leaves there."""

from __future__ import annotations

import contextlib
import itertools
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.campaigns import misbehaviour
from tests.trial.conftest import Node, finish, is_gone
from tests.trial.recipes import loop
from xaytune.messages import Ended, Heartbeat, Refused
from xaytune.sweep.options import TrackerSpec
from xaytune.trainer.callbacks import TrainState
from xaytune.trial.client.template_client import TemplateError
from xaytune.trial.common import launching
from xaytune.trial.run.trial import Trial

pytestmark = pytest.mark.slow


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_trial_finds_nothing_of_those_before_it(node: Node, tmp_path: Path) -> None:
    first, second = (node.train(tmp_path, "pollute", trial=number) for number in range(2))
    assert first.ended.status == second.ended.status == "completed"
    assert first.output.startswith("{'list of a module': []")
    # What follows tells of warnings that were made errors.
    assert second.output.splitlines()[0] == first.output.splitlines()[0]


def test_a_model_made_at_the_top_of_a_module_begins_anew_in_each_trial(node: Node, tmp_path: Path) -> None:
    bests = [node.train(tmp_path, "module_level_model", trial=number).ended.best for number in range(2)]
    assert bests[0] is not None
    assert bests[0] == bests[1]


def test_what_a_process_can_have_only_once_each_trial_can_have(node: Node, tmp_path: Path) -> None:
    assert [node.train(tmp_path, "process_group", trial=n).ended.status for n in range(2)] == ["completed"] * 2


def test_a_parser_of_arguments_finds_none(node: Node, tmp_path: Path) -> None:
    assert node.train(tmp_path, "parses_arguments").ended.epoch == 3


def test_a_recipe_runs_on_the_main_thread(node: Node, tmp_path: Path) -> None:
    assert node.train(tmp_path, "main_thread").ended.reason is None


@pytest.mark.parametrize(("cpus", "threads"), [(2, 2), (0.5, 1)])
def test_a_trial_uses_as_many_cpus_and_gpus_as_it_reserves_and_is_what_the_kernel_ends_first(
    node: Node, tmp_path: Path, cpus: float, threads: int
) -> None:
    assert node.train(tmp_path, "prints_its_world", cpus=cpus).output == f"{threads} '' False\n1000 False\n"


@pytest.mark.parametrize("trackers", [(), (TrackerSpec(tracker="tensorboard"),)])
def test_what_a_sweep_adds_to_a_trial_looks_at_metrics_alone(
    node: Node, tmp_path: Path, trackers: tuple[TrackerSpec, ...]
) -> None:
    assert node.train(tmp_path, "prints_what_is_looked_at", trackers=trackers).output == "[]\n"


@pytest.mark.parametrize("context", ["fork", "spawn", "forkserver"])
def test_loaders_that_keep_their_processes_end_with_the_trial(node: Node, tmp_path: Path, context: str) -> None:
    outcome = node.train(tmp_path, "loads", {"context": context})
    assert (outcome.ended.status, outcome.output) == ("completed", "")


def test_a_node_without_room_for_another_process_is_no_fault_of_the_recipe(
    new_node: Callable[..., Node], tmp_path: Path
) -> None:
    node = new_node()
    trial = node.begin(tmp_path, "waits")
    template = int(Path(f"/proc/{trial.pid}/stat").read_text().rpartition(")")[2].split()[1])
    children = Path(f"/proc/{template}/task/{template}/children")
    wait_until(lambda: len(children.read_text().split()) == 2)
    (ready,) = {*map(int, children.read_text().split())} - {trial.pid}
    os.kill(ready, signal.SIGKILL)
    assert is_gone(ready)
    trial.close()  # told after both have been waited for: their descriptors are closed
    limits = resource.prlimit(template, resource.RLIMIT_NOFILE)
    used = {int(number) for number in os.listdir(f"/proc/{template}/fd")}
    one_more = next(limit for limit in itertools.count(1) if len(set(range(limit)) - used) == 1)
    resource.prlimit(template, resource.RLIMIT_NOFILE, (one_more, limits[1]))
    with pytest.raises(OSError, match=r"no process can be started for it: .*Too many open files"):
        node.template.start_trial()
    resource.prlimit(template, resource.RLIMIT_NOFILE, limits)
    assert node.train(tmp_path, "main_thread", trial=1).ended.status == "completed"


def left_by(folder: Path) -> list[int]:
    return [int(pid) for pid in (folder / "children").read_text().split()]


def test_children_of_a_trial_end_with_it_whatever_session_they_are_in(node: Node, tmp_path: Path) -> None:
    assert node.train(tmp_path, "leaves_children").ended.status == "completed"
    assert all(is_gone(pid) for pid in left_by(tmp_path))


def test_a_trial_that_hangs_in_c_code_is_ended_with_its_children_and_leaves_its_stacks(
    node: Node, tmp_path: Path
) -> None:
    process = node.begin(tmp_path, "leaves_children", {"hangs": True})
    wait_until((tmp_path / "hangs").exists)
    process.close()
    assert all(is_gone(pid) for pid in (process.pid, *left_by(tmp_path)))
    assert "in hang\n" in (tmp_path / "output" / "00000.txt").read_text()


def test_a_trial_ends_with_its_actor(node: Node, tmp_path: Path, new_node: Callable[..., Node]) -> None:
    process = node.begin(tmp_path, "leaves_children", {"hangs": True})
    wait_until((tmp_path / "hangs").exists)
    node.template.close()  # as the kernel closes the connection of a process that is killed
    assert all(is_gone(pid) for pid in (process.pid, *left_by(tmp_path)))
    node.template = type(node.template)(node.task)


def test_a_trial_ends_with_its_template_and_so_do_its_children_and_the_next_has_a_new_one(
    new_node: Callable[..., Node], tmp_path: Path
) -> None:
    node = new_node()
    process = node.begin(tmp_path, "leaves_children", {"hangs": True})
    wait_until((tmp_path / "hangs").exists)
    os.kill(parent_of(process.pid), signal.SIGKILL)
    outcome = finish(process, tmp_path)
    assert outcome.ended.failure is not None
    assert outcome.ended.failure.kind == "lost"
    assert all(is_gone(pid) for pid in (process.pid, *left_by(tmp_path)))
    assert node.train(tmp_path).ended.status == "completed"


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_a_trial_that_is_killed_hurts_no_other(node: Node, tmp_path: Path) -> None:
    lost = node.train(tmp_path, "ends", {"way": "SIGKILL"})
    after = node.train(tmp_path, trial=1)
    assert lost.ended.failure is not None
    assert after.ended.status == "completed"
    assert parent_of(os.getpid()) != after.pid


def test_a_template_ends_when_nobody_is_connected_to_it(new_node: Callable[..., Node], tmp_path: Path) -> None:
    node = new_node()
    template = parent_of(node.begin(tmp_path, "waits").pid)
    node.template.close()
    assert is_gone(template)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_a_heartbeat_comes_in_time_from_a_trial_that_trains_no_step(node: Node, tmp_path: Path) -> None:
    process = node.begin(tmp_path, "hangs")
    wait_until((tmp_path / "hangs").exists)
    heard = [process.next_message(0.1) for _ in range(3)]
    assert all(isinstance(message, Heartbeat) for message in heard)
    process.close()


def test_what_a_trial_spends_long_on_before_its_first_step_is_told(node: Node, tmp_path: Path) -> None:
    start = node.train(tmp_path, "starts_slowly").ended.start
    assert start is not None
    assert start.seconds > 1.3
    assert start.where.startswith("reads_its_data (recipes.py:")


def ancestors_of(pid: int) -> list[int]:
    return [pid, *ancestors_of(parent_of(pid))] if pid else []


def test_a_template_has_an_interpreter_that_is_started_for_it_and_descends_from_nobody_here(
    new_node: Callable[..., Node], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launching, "subprocess", subprocess)  # as it is outside of tests
    node = new_node()
    process = node.begin(tmp_path, "waits")
    begun_with = Path(f"/proc/{process.pid}/environ").read_text().split("\0")
    assert "GLIBC_TUNABLES=glibc.malloc.hugetlb=1" in begun_with
    assert os.getpid() not in ancestors_of(process.pid)
    process.close()
    assert node.train(tmp_path).ended.status == "completed"


RECIPE = """
from tests.trial.recipes import loop
def train(config, trial):
    print(WORDS if "WORDS" in globals() else "trained", trial.shared)
    return loop(trial)
"""
Module = Callable[[str, str], Mapping[str, Any]]


@pytest.mark.parametrize("module", ["rich.table", "sklearn"], ids=["", "that sets variables itself"])
def test_a_package_that_one_trial_imports_is_there_for_the_next(node: Node, tmp_path: Path, module: str) -> None:
    outputs = [node.train(tmp_path, "imports_lazily", {"module": module}, trial=n).output for n in range(2)]
    assert outputs == ["not there\n", "there\n"]


def test_a_package_that_trials_set_up_by_the_environment_is_imported_by_each(node: Node, tmp_path: Path) -> None:
    for number in range(2):
        config = {"module": "rich.tree", "settings": {"SETTING": str(number)}}
        assert node.train(tmp_path, "imports_lazily", config, trial=number).output == "not there\n"
    config = {"module": "rich.tree"}
    others = [node.train(tmp_path, "imports_lazily", config, trial=number).output for number in (2, 3)]
    assert others == ["not there\n", "there\n"]


def test_settings_of_a_module_hold_in_its_trials_which_share_what_its_setup_made_once(
    new_node: Callable[..., Node], module: Module, tmp_path: Path
) -> None:
    text = """
import decimal, gc, sqlite3
import numpy as np, torch
gc.disable()
torch.set_default_device("meta"), torch.set_grad_enabled(False), np.seterr(all="raise")
decimal.getcontext().prec = 5
connection = sqlite3.connect(":memory:")
class Words:
    def __str__(self):
        return str([torch.empty(1).device.type, torch.is_grad_enabled(), np.geterr()["divide"],
                    decimal.getcontext().prec, connection.execute("select 1").fetchone(), gc.isenabled()])
WORDS = Words()
def prepare():
    with open(FILE, "a") as file:
        file.write("once ")
    return ["shared"]
"""
    file = tmp_path / "prepared"
    node = new_node(**module("settings", f"FILE = {str(file)!r}\n{text}{RECIPE}"), setup="settings:prepare")
    outputs = [node.train(tmp_path, trial=number).output for number in range(2)]
    assert outputs == ["['meta', False, 'raise', 5, (1,), False] ['shared']\n"] * 2
    assert file.read_text() == "once "


def test_trials_have_nothing_that_a_module_dropped_and_no_packages_of_rays_own(
    new_node: Callable[..., Node], module: Module, tmp_path: Path
) -> None:
    text = """
import gc, sys, weakref
class Cycle:
    def __init__(self):
        self.itself = self
DROPPED = weakref.ref(Cycle())
class Words:
    def __str__(self):
        rays = [path for path in sys.path if path.endswith("ray/thirdparty_files")]
        return str([DROPPED(), gc.isenabled(), gc.get_threshold()[0] > 0, rays])
WORDS = Words()
"""
    sys.path.insert(0, "/of/ray/thirdparty_files")
    try:
        outcome = new_node(**module("dropping", text + RECIPE)).train(tmp_path)
    finally:
        sys.path.remove("/of/ray/thirdparty_files")
    assert outcome.output == "[None, True, True, []] None\n"


def test_a_module_that_starts_a_thread_is_imported_by_each_trial_which_is_said(
    new_node: Callable[..., Node], module: Module, tmp_path: Path
) -> None:
    text = """
import threading, time
WORKER = threading.Thread(target=time.sleep, args=(60,), daemon=True)
WORKER.start()
class Words:
    def __str__(self):
        return f"alive {WORKER.is_alive()}"
WORDS = Words()
"""
    node = new_node(**module("threaded", text + RECIPE))
    outcome = node.train(tmp_path)
    assert outcome.output == "alive True None\n"
    (note,) = outcome.notes
    assert "threaded:train starts 1 thread when it is imported" in note


def test_imports_that_fail_are_told_at_once_and_together_as_what_they_are(
    new_node: Callable[..., Node], module: Module, tmp_path: Path
) -> None:
    module("usage", "import sys; print('usage: me'); sys.exit(2)")
    node = new_node(**module("broken", "import not_there\n" + RECIPE), callbacks=("usage:note",))
    (message,) = node.train(tmp_path).messages
    assert isinstance(message, Refused)
    missing, ended = map(str, message.problems)
    assert "broken cannot be imported: ModuleNotFoundError: No module named 'not_there'" in missing
    assert "usage: me" not in missing
    assert "it ends the process when it is imported: SystemExit: 2" in ended
    assert "usage: me" in ended


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("import os; print('said before'); os._exit(3)", "ended there: exit code 3; it printed:\nsaid before"),
        ("import ctypes; ctypes.string_at(0)", "ended there: killed by SIGSEGV"),
    ],
)
def test_an_import_that_ends_the_process_is_told_at_once_as_what_it_is(
    new_node: Callable[..., Node], module: Module, tmp_path: Path, text: str, told: str
) -> None:
    node = new_node(**module("broken", text + "\n" + RECIPE))
    with pytest.raises(TemplateError) as refused:
        node.train(tmp_path)
    assert told in str(refused.value)


def test_a_trial_gets_its_recipe_and_its_environment_however_large_they_are(
    new_node: Callable[..., Node], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = bytes(range(250)) * 10_000

    def recipe(config: dict[str, Any], trial: Trial) -> TrainState:
        print(len(data), sum(len(value) for name, value in os.environ.items() if name.startswith("LARGE")))
        return loop(trial)

    node = new_node(recipe)
    for number in range(10):
        monkeypatch.setenv(f"LARGE_{number}", "x" * 100_000)
    assert node.train(tmp_path).output == "2500000 1000000\n"


def test_an_end_comes_after_what_is_done_at_exit(node: Node, tmp_path: Path) -> None:
    outcome = node.train(tmp_path, "says")
    assert isinstance(outcome.messages[-1], Ended)
    assert is_gone(outcome.pid, within=0.01)


def test_trials_that_misbehave_at_random_leave_nothing_to_the_next() -> None:
    misbehaviour.run(runs=20, seed=0)


def test_a_trial_that_the_kernel_ends_for_want_of_memory_is_told_as_that(
    new_node: Callable[..., Node], tmp_path: Path
) -> None:
    node = new_node()
    waiting = node.begin(tmp_path, "waits")
    template = parent_of(waiting.pid)
    waiting.close()
    with memory_group(300_000_000, template):
        node.train(tmp_path)  # by the process that was ready before, and is not of the group
        starved = node.train(tmp_path, "eats_memory").ended
        killed = node.train(tmp_path, "ends", {"way": "SIGKILL"}).ended
        node.template.end()
        assert is_gone(template)
    assert starved.reason == "out of memory: the kernel killed its process"
    assert [one.failure.kind for one in (starved, killed) if one.failure is not None] == ["infeasible", "lost"]


@contextlib.contextmanager
def memory_group(limit: int, pid: int) -> Iterator[None]:
    """Puts a process into a control group of little memory; skips the test where that is not allowed."""
    lines = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    own = {controllers: path for _, controllers, path in lines}
    try:
        if "memory" in own:
            group = Path(f"/sys/fs/cgroup/memory{own['memory']}") / f"xaytune-{pid}"
            group.mkdir()
            (group / "memory.limit_in_bytes").write_text(str(limit))
        else:
            group = Path(f"/sys/fs/cgroup{own['']}") / f"xaytune-{pid}"
            group.mkdir()
            (group / "memory.max").write_text(str(limit))
        (group / "cgroup.procs").write_text(str(pid))
    except OSError as error:
        pytest.skip(f"no control group can be made: {error}")
    yield
    group.rmdir()
