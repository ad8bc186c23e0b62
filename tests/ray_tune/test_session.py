"""The Ray that a sweep starts."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tests.cluster.hosts import wait_until
from tests.conftest import Run
from xaytune.errors import SessionError
from xaytune.ray_tune.session import RaySession

# In a process that has no Ray: starts one in each of several environments, and prints why it cannot.
_START = """
import json, os, sys
from xaytune.errors import SessionError
from xaytune.ray_tune.session import RaySession
fine = dict(os.environ)
for environment in json.loads(sys.argv[1]):
    os.environ.update(fine | environment)
    try:
        with RaySession() as session:
            session.wait()
    except SessionError as error:
        print(error)
"""


def test_an_environment_that_ray_cannot_live_with_is_told_in_one_line_with_the_remedy(
    tmp_path: Path,
) -> None:
    environments = [
        {"HOME": "/dev/null"},
        {"RAY_TMPDIR": "/dev/null"},
        {"RAY_TMPDIR": "/tmp/" + "a" * 90},
        {"PYTHONWARNINGS": "error"},
    ]
    started = subprocess.run(
        [sys.executable, "-c", _START, json.dumps(environments)],
        env={"PATH": "/usr/bin:/bin", "RAY_TMPDIR": "/tmp", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    home, folder, long, warnings = started.stdout.splitlines()
    assert "'/dev/null/.ray'; set RAY_TMPDIR and HOME to folders that can be written" in home
    assert "'/dev/null/ray'; set RAY_TMPDIR and HOME to folders that can be written" in folder
    assert long.startswith("the path of the temporary folder is too long for Ray's sockets")
    assert long.endswith(": set RAY_TMPDIR to a short one, such as /tmp")
    assert warnings.startswith("PYTHONWARNINGS makes warnings errors, which ends Ray's own processes")


def test_an_address_file_that_was_cut_short_leads_to_no_ray(tmp_path: Path) -> None:
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").touch()
    started = subprocess.run(
        [sys.executable, "-c", _START, json.dumps([{}])],
        env={"PATH": "/usr/bin:/bin", "RAY_TMPDIR": str(tmp_path), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert started.stdout.startswith("the path of the temporary folder is too long"), started.stderr


# In a process that has no Ray: a sweep whose name is taken, one whose recipe is wrong, and one that is done.
_MISTAKES = """
import sys
import xaytune
done, storage = sys.argv[1:]
options = dict(metric="m", mode="max", space={"x": {"uniform": [0, 1]}})
for recipe, name in ((lambda config, trial: 1, done), (lambda config: 1, "new")):
    try:
        xaytune.Sweep(recipe, **options).run(name=name, storage=storage)
    except xaytune.SpecError as error:
        print(error)
print(xaytune.resume(done, storage=storage))
"""


def test_what_needs_no_ray_is_told_without_starting_one(tmp_path: Path, run_in: Run) -> None:
    run_in("curve", storage=tmp_path)
    told = subprocess.run(
        [sys.executable, "-c", _MISTAKES, "curve", str(tmp_path)],
        env={**os.environ, "RAY_TMPDIR": str(tmp_path / "ray")},
        capture_output=True,
        text=True,
    )
    taken, wrong, done = told.stdout.splitlines()
    assert taken.endswith("curve holds a sweep already: choose another name, or resume that one")
    assert wrong.endswith("must take (config, trial) (got (config))")
    assert done.startswith("<Results of curve: completed, 1 trials")
    assert not (tmp_path / "ray").exists()


@pytest.mark.slow
def test_a_ray_whose_processes_end_as_they_start_is_started_again(tmp_path: Path) -> None:
    setpriv = tmp_path / "setpriv"  # starts what a raylet needs; the first time that ends, and the raylet
    ends = f"mkdir {tmp_path}/tried 2>&- && kill -KILL $PPID && exit 1"
    setpriv.write_text(f'#!/bin/sh\n{ends}\nexec {shutil.which("setpriv")} "$@"\n')
    setpriv.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    code = "from xaytune.ray_tune.session import RaySession\nwith RaySession('local') as session: session.wait()"
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PATH": path}, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "tried").exists()


_INTERRUPTED = """
import os, signal, threading
from xaytune.ray_tune.session import RaySession

def starting():
    return any(thread.name == "ray-session" for thread in threading.enumerate())

def raise_as_python_does(signum, frame):
    if starting():
        raise KeyboardInterrupt

def interrupt():
    while not over.wait(0.01):
        os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, raise_as_python_does)
over, pressing = threading.Event(), threading.Thread(target=interrupt)
try:
    with RaySession() as session:
        pressing.start()
        session.wait()
except KeyboardInterrupt:
    print("left behind" if starting() else "interrupted")
over.set()
pressing.join()
with RaySession() as session:
    session.wait()
    print("there")
"""


def test_however_often_it_is_interrupted_a_ray_that_starts_is_ended_before_the_next_sweep_of_the_process() -> None:
    done = subprocess.run([sys.executable, "-c", _INTERRUPTED], capture_output=True, text=True)
    assert done.stdout.split() == ["interrupted", "there"]
    assert done.stderr == "interrupted: this ends once Ray has started\n"


def test_two_sweeps_at_once_in_one_process_are_refused() -> None:
    with RaySession("http://nowhere"), pytest.raises(SessionError, match="a sweep is running in this process"):
        RaySession().__enter__()
    with RaySession("http://nowhere"):  # one after the other is fine
        pass


_ALIVE = """
import sys, time
from xaytune.ray_tune.session import RaySession
with RaySession() as session:
    session.wait()
    print("there", flush=True)
    time.sleep(600)
"""


def test_ray_kills_no_trial_for_want_of_memory_runs_no_dashboard_and_nothing_of_it_outlives_a_killed_driver() -> (
    None
):
    with tempfile.TemporaryDirectory(prefix="xt", dir=os.environ.get("RAY_TMPDIR", "/tmp")) as folder:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        environment["RAY_TMPDIR"] = folder
        driver = subprocess.Popen([sys.executable, "-c", _ALIVE], env=environment, stdout=subprocess.PIPE)
        assert driver.stdout is not None
        assert driver.stdout.readline() == b"there\n"
        (log,) = Path(folder).glob("ray/session_2*/logs/raylet.out")
        assert "MemoryMonitor disabled" in log.read_text()
        assert not list(log.parent.glob("dashboard*.log"))
        driver.kill()
        driver.wait()
        started, deadline = f"RAY_TMPDIR={folder}".encode(), time.monotonic() + 45  # else it is a minute, and more
        while left := _processes(started):
            assert time.monotonic() < deadline, left
            time.sleep(0.1)


_SWEEP = """
import json, sys
from xaytune.ray_tune.sweep import Sweep
space = {"x": {"uniform": [0, 1]}}
sweep = Sweep("tests.recipes:curve", metric="score", mode="max", space=space, num_samples=2)
results = sweep.run(storage=sys.argv[1])
notes = [event["text"] for event in results.events() if event["event"] == "note"]
print(json.dumps([results.sweep.counts()["completed"], notes]))
"""


def test_a_ray_of_this_machine_is_used_with_its_own_tokens_and_none_that_has_ended(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="xt", dir=os.environ.get("RAY_TMPDIR", "/tmp")) as folder:
        (tmp_path / ".ray").mkdir()
        (tmp_path / ".ray" / "auth_token").write_text("0" * 64)  # of another cluster
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        environment |= {"RAY_TMPDIR": folder, "HOME": str(tmp_path)}
        started = subprocess.Popen(
            [*_RAY, "start", "--head", "--block", "--port=0", "--num-cpus=2", "--include-dashboard=false"],
            env={**environment, "RAY_AUTH_MODE": "disabled"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            written = Path(folder) / "ray" / "ray_current_cluster"
            wait_until(lambda: written.exists() and bool(written.read_text()), 60)
            address = written.read_text()
            completed, notes = _swept(tmp_path, environment)
            assert completed == 2
            assert any(
                note.startswith(f"trials run in the Ray at {address}, which this machine is a node of")
                for note in notes
            )
        finally:
            os.killpg(started.pid, signal.SIGKILL)
            started.wait()
        assert written.exists()
        completed, notes = _swept(tmp_path, environment)
        assert completed == 2
        assert not any(note.startswith("trials run in the Ray") for note in notes)


_NOTES = """
from xaytune.ray_tune.session import RaySession
with RaySession() as session:
    session.wait()
    print(*session.notes, sep="\\n")
"""


def test_a_ray_of_this_machine_that_does_not_answer_is_told_and_not_used() -> None:
    with (
        tempfile.TemporaryDirectory(prefix="xt", dir=os.environ.get("RAY_TMPDIR", "/tmp")) as folder,
        socket.create_server(("", 0)) as silent,
    ):
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        (Path(folder) / "ray").mkdir()
        (Path(folder) / "ray" / "ray_current_cluster").write_text(address)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        done = subprocess.run(
            [sys.executable, "-c", _NOTES],
            env={**environment, "RAY_TMPDIR": folder},
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("the Ray at ")
    assert done.stdout.endswith("): it is not used\n")


_RAY = [sys.executable, "-m", "ray.scripts.scripts"]


def _swept(storage: Path, environment: dict[str, str]) -> tuple[int, list[str]]:
    """Runs a sweep. Returns how many of its trials completed, and its notes."""
    done = subprocess.run(
        [sys.executable, "-c", _SWEEP, str(storage)], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    completed, notes = json.loads(done.stdout.splitlines()[-1])
    return completed, notes


def _processes(variable: bytes) -> list[str]:
    """Returns the command lines of the processes that have a variable in their environment."""
    found = []
    for path in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if path.name.isdigit() and variable in (path / "environ").read_bytes().split(b"\0"):
                found.append((path / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found
