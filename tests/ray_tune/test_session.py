"""The Ray that a sweep starts."""

from __future__ import annotations

import json
import subprocess
import sys
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
