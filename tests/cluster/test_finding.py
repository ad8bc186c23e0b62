"""Which job ran a sweep that is named, as the cluster's dashboard tells it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
import ray
from ray.job_submission import JobSubmissionClient

from xaytune.cluster.connection import Connection
from xaytune.cluster.sweeps import find
from xaytune.errors import ClusterError
from xaytune.records.stream import as_line

BEGUN = {"t": 1.0, "spec": {}, "num_trials": 1, "host": "h", "pid": 1}
LOGS = {"/api/jobs/a-1/logs": as_line({"event": "sweep", "state": "running", "name": "a", **BEGUN})}
JOBS = [
    {"type": "SUBMISSION", "submission_id": job, "entrypoint": "", "status": "SUCCEEDED", "start_time": time}
    | {"metadata": {"xaytune.sweep": "a", "xaytune.storage": "/runs"}}
    for time, job in enumerate(["a-1", "a-2"])
]
ANSWERS: dict[str, Any] = {
    "/api/version": {"version": "4", "ray_version": ray.__version__, "ray_commit": "", "session_name": ""},
    "/api/jobs/": JOBS,
} | {path: {"logs": f"{line}\n"} for path, line in LOGS.items()}


class Dashboard(BaseHTTPRequestHandler):
    """Answers as that of a cluster on which the log of the newest job cannot be read any more."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(200 if self.path in ANSWERS else 500)
        self.end_headers()
        self.wfile.write(json.dumps(ANSWERS.get(self.path)).encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def connection() -> Iterator[Connection]:
    Dashboard.asked = []
    with HTTPServer(("127.0.0.1", 0), Dashboard) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        yield Connection("a cluster", "", url, JobSubmissionClient(url), {})
        server.shutdown()


def test_a_job_whose_log_cannot_be_read_hides_no_other_sweep(connection: Connection) -> None:
    assert find(connection, "a").job == "a-1"
    with pytest.raises(ClusterError, match=r"no sweep 'b' .* \(there are: a-2, a\)"):
        find(connection, "b")


def test_a_job_that_runs_is_not_passed_over_for_an_older_one_where_its_log_cannot_be_read(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(JOBS[1], "status", "RUNNING")
    with pytest.raises(ClusterError, match="a cluster refused"):
        find(connection, "a")


def test_the_sweep_of_a_job_is_found_by_its_id_without_reading_any_log(connection: Connection) -> None:
    assert find(connection, "a-1").job == "a-1"
    assert not [path for path in Dashboard.asked if path.endswith("/logs")]
