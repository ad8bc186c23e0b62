"""Sweeps on a cluster that adds nodes as they are needed."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID

from tests.cluster.conftest import TOKEN
from tests.cluster.hosts import RayHosts, skip_without_hosts, wait_until
from xaytune.records.results import Results

SPEC = """\
recipe: tests.recipes:curve
metric: score
mode: max
space: {x: {grid: [0.1, 0.9]}}
callbacks: [tests.callbacks:wait_for_the_other, tests.callbacks:sleep_a_little]
"""
# Ray's provider for tests: its nodes are processes on the host of the head.
CONFIG = {
    "cluster_name": "growing",
    "max_workers": 4,
    "upscaling_speed": 1.0,
    "idle_timeout_minutes": 1,
    "provider": {
        "type": "external",
        "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
        "use_node_id_as_ip": True,
        "disable_node_updaters": True,
        "disable_launch_config_check": True,
        "launch_multiple": True,
        "head_node_id": FAKE_HEAD_NODE_ID,
    },
    "auth": {},
    **{f"{whose}setup_commands": [] for whose in ("", "head_", "worker_")},
    **{f"{whose}_start_ray_commands": [] for whose in ("head", "worker")},
    **{key: [] for key in ("initialization_commands", "cluster_synced_files", "rsync_exclude", "rsync_filter")},
    "file_mounts": {},
    "docker": {},
    "head_node_type": "ray.head.default",
    "available_node_types": {
        "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
        "worker": {"resources": {"CPU": 1}, "node_config": {}, "min_workers": 0, "max_workers": 4},
    },
}


@pytest.fixture
def growing() -> Iterator[RayHosts]:
    """A cluster of a head that has no CPU, whose autoscaler may add four nodes with one."""
    skip_without_hosts()
    folder = Path(tempfile.mkdtemp(prefix="xt", dir="/tmp"))
    config = folder / "cluster.json"
    config.write_text(json.dumps(CONFIG))
    cluster = RayHosts(folder, TOKEN)
    try:
        cluster.start_head(
            f"--autoscaling-config={config}",
            AUTOSCALER_UPDATE_INTERVAL_S="1",
            RAY_FAKE_CLUSTER="1",
            RAY_enable_autoscaler_v2="1",
            RAY_CLOUD_INSTANCE_ID=FAKE_HEAD_NODE_ID,
            RAY_OVERRIDE_NODE_ID_FOR_TESTING=FAKE_HEAD_NODE_ID,
        )
        wait_until(lambda: cluster.alive() == 1, of="the head did not start")
        yield cluster
    finally:
        cluster.remove()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.ray
def test_a_sweep_asks_the_autoscaler_for_the_nodes_that_it_needs_and_no_more(
    growing: RayHosts, tmp_path: Path
) -> None:
    (tmp_path / "grown.yaml").write_text(SPEC)
    command = [sys.executable, "-m", "xaytune", "run", str(tmp_path / "grown.yaml"), "--storage", str(tmp_path)]
    process = growing.head.start(*command, "--address", growing.address, **growing.environment)
    most, deadline = 0, time.monotonic() + 120
    while process.poll() is None:
        assert time.monotonic() < deadline, growing.head.output.read_text()
        most = max(most, growing.alive())
    assert process.returncode == 0, growing.head.output.read_text()
    results = Results(tmp_path / "grown")
    assert [trial.status for trial in results.trials] == ["completed"] * 2
    began, ended = ([getattr(trial, time) for trial in results.trials] for time in ("started", "ended"))
    assert max(began) < min(ended)  # at once, each on a node of its own
    assert most == 3  # with the head
