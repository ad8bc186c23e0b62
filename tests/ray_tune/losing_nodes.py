"""Runs a sweep on a cluster of its own whose nodes are lost while it trains: one is preempted, another dies."""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path

import ray
from ray._raylet import GcsClient  # type: ignore[attr-defined]
from ray.cluster_utils import Cluster
from ray.core.generated.autoscaler_pb2 import DrainNodeReason  # type: ignore[attr-defined]

from xaytune.ray_tune.sweep import Sweep
from xaytune.records.journal import Event
from xaytune.records.state import SweepState


def main(storage: str) -> None:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)

    def lose_node(sweep: SweepState, event: Event) -> None:
        """Loses the node of each trial, when both have checkpoints, and the trial of the one before is resumed."""
        saved = [trial for trial in sweep.trials.values() if trial.checkpoints]
        resumed = sum(trial.attempts == 2 for trial in sweep.trials.values())
        if event["event"] != "checkpoint" or not nodes or len(saved) < 2 or resumed != 2 - len(nodes):
            return
        node = nodes.pop()
        if nodes:
            deadline = int((time.time() + 5) * 1000)
            GcsClient(address=cluster.gcs_address).drain_node(
                node.node_id, DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION"), "taken away", deadline
            )
        cluster.remove_node(node, allow_graceful=False)
        cluster.add_node(num_cpus=1)

    Sweep(
        "tests.recipes:saved",
        metric="eval_accuracy",
        mode="max",
        space={"x": {"loguniform": [1e-3, 1]}},
        num_samples=2,
        failures={"retries": 0},
        callbacks=["tests.callbacks:trains_slowly_until_it_is_resumed", "tests.callbacks:note_resume"],
    ).run(storage=Path(storage), listener=lose_node)
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main(sys.argv[1])
