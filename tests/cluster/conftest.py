from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster.hosts import RayHosts, skip_without_hosts, wait_until

TOKEN = "0123456789abcdef0123456789abcdef"
Client = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(scope="module")
def hosts() -> Iterator[RayHosts]:
    """A Ray cluster of a head and two workers, each a host of its own."""
    skip_without_hosts()
    folder = Path(tempfile.mkdtemp(prefix="xt", dir="/tmp"))
    cluster = RayHosts(folder, TOKEN)
    try:
        cluster.start_head()
        cluster.start_worker()
        cluster.start_worker(cluster.private)
        wait_until(lambda: cluster.alive() == 3, of="the nodes did not join")
        yield cluster
    finally:
        cluster.remove()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def client(hosts: RayHosts, tmp_path: Path) -> Iterator[Client]:
    """Starts commands outside of the cluster."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str, token: str | None = TOKEN, folder: Path | None = None) -> subprocess.Popen[str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        known = {"HOME": str(tmp_path), "RAY_ADDRESS": hosts.dashboard}
        process = subprocess.Popen(
            [sys.executable, "-m", "xaytune", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=folder,
            env={**environment, **known, **({"RAY_AUTH_TOKEN": token} if token else {})},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()
