"""What trials reserve, and what they use of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import ray

from tests.conftest import Run
from xaytune.errors import SpecError
from xaytune.ray_tune.resources import Capacity, check_feasible
from xaytune.sweep.spec import SweepSpec


def spec(**options: Any) -> SweepSpec:
    space = {"x": {"uniform": [0, 1]}}
    required = {"recipe": "tests.recipes:curve", "metric": "score", "mode": "max", "space": space}
    return SweepSpec.parse({**required, "num_samples": 50, **options})


@pytest.mark.parametrize(
    ("options", "trials"),
    [
        ({}, 2),
        ({"resources_per_trial": {"cpu": 0.1}}, 20),
        ({"resources_per_trial": {"cpu": 0.1}, "num_samples": 3}, 3),
        ({"resources_per_trial": {"cpu": 0.1}, "max_concurrent_trials": 4}, 4),
        ({"resources_per_trial": [{"cpu": 1}, {"cpu": 1}]}, 1),
        ({"resources_per_trial": [{"cpu": 0.5}, {"cpu": 0.5}]}, 2),
    ],
)
def test_as_many_trials_run_at_once_as_there_is_room_for(
    ray_here: None, options: dict[str, Any], trials: int
) -> None:
    assert Capacity(spec(**options)).count() == trials


@pytest.mark.parametrize(("small", "trials"), [(10, 2 + 3 * 8 + 7), (1, 2 + 3 * 8 + 1)])
def test_no_more_trials_are_waited_for_than_the_nodes_have_room_for_that_an_autoscaler_may_add(
    ray_here: None, tmp_path: Path, small: int, trials: int
) -> None:
    types = {
        "head": {"resources": {"CPU": 2}},
        "large": {"resources": {"CPU": 8}, "max_workers": 3},
        "small": {"resources": {"CPU": 1}, "max_workers": small},
    }
    config = tmp_path / "autoscaling.json"
    config.write_text(json.dumps({"max_workers": 10, "head_node_type": "head", "available_node_types": types}))
    # Its command line is what tells.
    options = [f"--gcs-address={ray.get_runtime_context().gcs_address}", f"--autoscaling-config={config}"]
    waits = [sys.executable, "-c", "print(flush=True); input()", *options]
    with subprocess.Popen(waits, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as monitor:
        assert monitor.stdout is not None
        monitor.stdout.readline()
        assert Capacity(spec()).count() == trials
        monitor.communicate(b"\n")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"resources_per_trial": {"cpu": 3}}, "got cpu 3; nodes have at most cpu 2"),
        ({"resources_per_trial": {"cpu": 1, "disk": 1}}, "got cpu 1, disk 1; nodes have at most cpu 2, disk 0"),
        ({"resources_per_trial": [{"cpu": 1}, {"gpu": 1}]}, "got gpu 1; nodes have at most gpu 0"),
        (
            {"resources_per_trial": [{"cpu": 2}, {"cpu": 1}], "placement_strategy": "STRICT_PACK"},
            "got cpu 3; nodes have at most cpu 2",
        ),
        ({"resources_per_trial": [{"cpu": 2}, {"cpu": 1}]}, "got cpu 3; the cluster has cpu 2"),
    ],
)
def test_a_trial_that_could_never_run_is_refused(ray_here: None, options: dict[str, Any], told: str) -> None:
    with pytest.raises(SpecError, match=told):
        check_feasible(spec(**options))


def test_a_trial_uses_the_cpus_that_it_reserves(run: Run) -> None:
    results = run("counts_threads", num_samples=1, resources_per_trial={"cpu": 2})
    assert results.history(0)["metrics.threads"].tolist() == [2]


def test_a_trial_of_several_bundles_has_them_for_what_it_starts(run: Run) -> None:
    results = run(
        "trains_in_its_second_bundle",
        module="tests.ray_tune.bundle_recipes",
        num_samples=2,
        resources_per_trial=[{"cpu": 1}, {"cpu": 1}],
    )
    first, second = results.trials
    assert [trial.value for trial in results.trials] == [1, 1]
    assert [trial.metrics["threads"] for trial in results.trials] == [1, 1]  # as many as its own bundle has CPUs
    assert first.ended is not None
    assert second.started is not None
    assert first.ended <= second.started  # there is room for one at a time
