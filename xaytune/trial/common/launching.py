"""Starting an interpreter that imports what trials need."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import IO

# Where Ray puts packages of its own, before all others, once it is imported: trials find those that are installed.
_OF_RAY = os.path.join("ray", "thirdparty_files")
_PROGRAM = (
    "import pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer); "
    "from xaytune.trial.process.template import main; main()"
)


def launch(
    role: str,
    descriptors: Sequence[int],
    boot: bytes,
    environment: Mapping[str, str],
    output: IO[bytes] | int,
) -> subprocess.Popen[bytes]:
    """Starts a template process, or a trial's own.

    Args:
        role: ``template`` or ``trial``.
        descriptors: The sockets that it talks by.
        boot: The pickled task.
        environment: Its environment.
        output: Where it writes, until it is a trial's.
    """
    with tempfile.TemporaryFile() as file:
        pickle.dump([os.path.abspath(path) for path in sys.path if not path.endswith(_OF_RAY)], file)
        file.write(boot)
        file.seek(0)
        return subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, role, *map(str, descriptors)],
            stdin=file,
            stdout=output,
            stderr=output,
            pass_fds=descriptors,
            env=environment,
            start_new_session=True,
        )
