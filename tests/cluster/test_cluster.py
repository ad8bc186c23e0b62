"""Sweeps on a cluster of three hosts, launched from a fourth."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import ray

from tests.cluster.conftest import Client
from tests.cluster.hosts import Host, RayHosts, wait_until
from xaytune.errors import JournalError
from xaytune.records.journal import FILE_NAME, read_events
from xaytune.records.results import Results

SPEC = """\
recipe: tests.recipes:saved
metric: eval_accuracy
mode: max
space: {x: {loguniform: [0.001, 1]}}
num_samples: 2
"""


def text_of(client: Client, *arguments: str, code: int = 0, **options: Any) -> str:
    """What a command prints, which is to end with a code."""
    process = client(*arguments, **options)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == code, said
    assert "Traceback" not in said
    return said


@pytest.fixture
def slow() -> Iterator[str]:
    """A spec of a sweep that takes a while, in the folder that is shipped."""
    path = Path(f"slow_sweep_{os.getpid()}.yaml")
    path.write_text(SPEC)
    yield str(path)
    path.unlink()


def has(folder: Path, event: str, **fields: object) -> bool:
    """Whether a journal has an event yet."""
    try:
        events = list(read_events(folder / FILE_NAME))
    except JournalError:
        return False
    return any(one["event"] == event and fields.items() <= one.items() for one in events)


def test_a_sweep_is_stopped_from_outside_through_the_loops_of_its_trials_and_goes_on(
    hosts: RayHosts, client: Client, slow: str, tmp_path: Path
) -> None:
    options = ["callbacks=[tests.callbacks:trains_slowly_until_it_is_resumed]", "stop_grace_s=.inf"]
    slowly = [part for option in options for part in ("--set", option)]
    said = text_of(client, "launch", slow, "--storage", str(tmp_path), "--name", "slow", "--detach", *slowly)
    assert "slow was launched as slow-" in said
    wait_until(lambda: all(has(tmp_path / "slow", "checkpoint", trial=trial) for trial in (0, 1)))
    assert "slow: running, 2 trials" in text_of(client, "status", "slow", "--address", hosts.dashboard)
    said = text_of(client, "stop", "slow")
    assert "slow: interrupted in" in said
    results = Results(tmp_path / "slow")
    assert (results.sweep.state, results.sweep.reason) == ("interrupted", "interrupted by the user")
    assert [trial.status for trial in results.trials] == ["paused"] * 2
    assert all(trial.checkpoints for trial in results.trials)
    assert "slow has ended already" in text_of(client, "stop", "slow")
    # A job that could not begin for its name is taken does not hide the sweep that has it.
    said = text_of(client, "launch", slow, "--storage", str(tmp_path), "--name", "slow", code=2)
    assert "slow holds a sweep already: choose another name" in said
    said = text_of(client, "resume", "slow", "--address", hosts.dashboard, "--set", "metric=loss", code=2)
    assert "metric: cannot be changed any more" in said
    assert "interrupted" not in said
    said = text_of(client, "resume", "slow", "--address", hosts.dashboard)
    assert "slow: completed in" in said
    results = Results(tmp_path / "slow")
    assert [trial.status for trial in results.trials] == ["completed"] * 2
    assert [trial.attempts for trial in results.trials] == [2, 2]
    for trial in results.trials:
        assert results.history(trial.number)["global_step"].tolist() == list(range(1, 55))


def test_a_storage_that_a_node_does_not_share_is_refused_with_what_to_do(
    hosts: RayHosts, client: Client, slow: str
) -> None:
    said = text_of(client, "launch", slow, "--storage", str(hosts.private), code=2)
    blind = hosts.workers[1].ip
    assert f"storage: {hosts.private}/{Path(slow).stem} is not on every node: {blind} cannot see it" in said
    assert "give a folder that all nodes mount, or a URI such as s3://bucket/sweeps" in said


def test_a_wrong_token_and_none_are_told(hosts: RayHosts, client: Client, slow: str) -> None:
    said = text_of(client, "launch", slow, token="f" * 32, code=2)
    assert f"the cluster at {hosts.dashboard} does not take this token" in said
    said = text_of(client, "launch", slow, token=None, code=2)
    assert f"the cluster at {hosts.dashboard} asks for a token, and there is none: set RAY_AUTH_TOKEN" in said


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("http://127.0.0.1:9", "no Ray dashboard answers at http://127.0.0.1:9 ([Errno 111] Connection refused)"),
        ("HEAD:6379", "no Ray dashboard answers at http://HEAD:6379 (it speaks no HTTP)"),
        ("ray://HEAD:10001", "give http://HEAD:8265 (got ray://HEAD:10001)"),
    ],
)
def test_an_address_where_no_dashboard_is_is_told(
    hosts: RayHosts, client: Client, slow: str, address: str, told: str
) -> None:
    address, told = (text.replace("HEAD", hosts.head.ip) for text in (address, told))
    assert told in text_of(client, "launch", slow, "--address", address, code=2)


def test_a_node_with_a_wrong_token_is_told(hosts: RayHosts, slow: str) -> None:
    environment = {**hosts.environment, "RAY_AUTH_TOKEN": "f" * 32}
    before = len(hosts.head.output.read_text())
    process = hosts.head.start(
        sys.executable, "-m", "xaytune", "run", slow, "--address", hosts.address, **environment
    )
    assert process.wait(timeout=60) == 2
    said = hosts.head.output.read_text()[before:]
    assert f"the Ray at {hosts.address} does not take this token" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("address", ["127.0.0.1:9", "ray://127.0.0.1:10001"])
def test_an_address_where_no_sweep_can_run_is_told(client: Client, slow: str, address: str) -> None:
    said = text_of(client, "run", slow, "--address", address, code=2)
    assert address in said
    assert "HEAD:6379" in said


class _Another(BaseHTTPRequestHandler):
    """Answers as the dashboard of a cluster with other versions does."""

    def do_GET(self) -> None:
        answers = {
            "/api/version": {"ray_version": "2.59.0"},
            "/api/v0/cluster_metadata": {"data": {"rayVersion": "2.59.0", "pythonVersion": "3.10.4"}},
        }
        self.send_response(200 if self.path in answers else 404)
        self.end_headers()
        self.wfile.write(json.dumps(answers.get(self.path)).encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_a_cluster_with_another_ray_or_python_is_told(client: Client, slow: str) -> None:
    with HTTPServer(("127.0.0.1", 0), _Another) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        said = text_of(client, "launch", slow, "--address", f"127.0.0.1:{server.server_port}", code=2)
        server.shutdown()
    assert f"runs Ray 2.59.0 with Python 3.10, this is Ray {ray.__version__} with Python 3." in said
    assert "use the same in both places" in said


def test_a_working_directory_that_is_too_large_is_told_with_what_is_large(client: Client, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with (tmp_path / "data" / "images.bin").open("wb") as file:
        file.truncate(120 * 2**20)
    (tmp_path / "slow.yaml").write_text(SPEC)
    said = text_of(client, "launch", "slow.yaml", folder=tmp_path, code=2)
    assert f"the working directory {tmp_path} is too large to be shipped: 120 MiB, of 100 at most" in said
    assert "largest: data 120 MiB" in said
    assert "name in .gitignore or .rayignore what the sweep does not need" in said


def test_a_sweep_survives_the_loss_of_its_client_and_of_a_node_and_uses_a_node_that_joins(
    hosts: RayHosts, client: Client, tmp_path: Path
) -> None:
    slowed = ["sleep_10_ms", "note_resume", "later_trials_wait_to_go"]
    options = ("--num-samples", "12", "--set", "scheduler={algorithm: asha, max_t: 27, reduction_factor: 3}")
    callbacks = f"callbacks=[{', '.join(f'tests.callbacks:{name}' for name in slowed)}]"
    folder = tmp_path / "digits"
    launched = client("launch", "sweeps/digits.yaml", "--storage", str(tmp_path), *options, "--set", callbacks)
    wait_until(lambda: has(folder, "checkpoint"), of="the sweep did not begin")
    launched.kill()
    attached = client("attach", "digits")
    # A trial that goes on from the third epoch trains six more: it is lost in the midst of them.
    wait_until(lambda: has(folder, "verdict", epoch=3, decision="continue"), of="no trial came to its third epoch")
    lost = worker_of(hosts, folder)
    lost.cut_off()
    joined = hosts.start_worker()
    wait_until(lambda: has(folder, "failure"), of="the loss was not noticed")
    lost.kill()
    wait_until(lambda: has(folder, "start", node=joined.ip), 120, of="the node that joined is not used")
    (folder / "go").touch()
    said, _ = attached.communicate(timeout=240)
    assert attached.returncode == 0, said
    assert "digits: completed in" in said
    results = Results(folder)
    assert len(results.trials) == 12
    assert {trial.status for trial in results.trials} == {"completed", "stopped"}
    failures = [event for event in results.events() if event["event"] == "failure"]
    assert [event["kind"] for event in failures] == ["node_lost"]
    moved = results.sweep.trials[failures[0]["trial"]]
    assert moved.attempts == 2
    assert moved.node != lost.ip
    assert int((folder / "resumed.txt").read_text()) > 0
    for trial in results.trials:
        assert results.history(trial.number)["global_step"].tolist() == list(range(1, trial.global_step + 1))


def worker_of(hosts: RayHosts, folder: Path) -> Host:
    """The worker on which the trial trains that went on from its third epoch."""
    events = list(read_events(folder / FILE_NAME))
    verdicts = [event for event in events if event["event"] == "verdict" and event["epoch"] == 3]
    trial = next(verdict["trial"] for verdict in verdicts if verdict["decision"] == "continue")
    nodes = {event["trial"]: event["node"] for event in events if event["event"] == "start"}
    return next(worker for worker in hosts.workers if worker.ip == nodes[trial])
