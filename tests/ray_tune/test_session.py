"""The Ray that a sweep starts."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

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


_ALIVE = """
import sys, time
from xaytune.ray_tune.session import RaySession
with RaySession() as session:
    session.wait()
    print("there", flush=True)
    time.sleep(600)
"""


def test_ray_kills_no_trial_for_want_of_memory_and_nothing_of_it_outlives_a_driver_that_is_killed() -> None:
    with tempfile.TemporaryDirectory(prefix="xt", dir=os.environ.get("RAY_TMPDIR", "/tmp")) as folder:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        environment["RAY_TMPDIR"] = folder
        driver = subprocess.Popen([sys.executable, "-c", _ALIVE], env=environment, stdout=subprocess.PIPE)
        assert driver.stdout is not None
        assert driver.stdout.readline() == b"there\n"
        (log,) = Path(folder).glob("ray/session_2*/logs/raylet.out")
        assert "MemoryMonitor disabled" in log.read_text()
        driver.kill()
        driver.wait()
        started, deadline = f"RAY_TMPDIR={folder}".encode(), time.monotonic() + 45  # else it is a minute, and more
        while left := _processes(started):
            assert time.monotonic() < deadline, left
            time.sleep(0.1)


def _processes(variable: bytes) -> list[str]:
    """Returns the command lines of the processes that have a variable in their environment."""
    found = []
    for path in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if path.name.isdigit() and variable in (path / "environ").read_bytes().split(b"\0"):
                found.append((path / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found
