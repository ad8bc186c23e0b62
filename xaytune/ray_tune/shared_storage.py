"""Whether all nodes of a cluster see the folder of a sweep."""

from __future__ import annotations

import os
import tempfile
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from xaytune.errors import Problem, SpecError
from xaytune.records.sweep_folder import SweepFolder

# Seconds that a node may say nothing; then it is on its way out.
_ANSWER_S = 30.0


def check_shared(sweep_folder: SweepFolder) -> None:
    """Checks that all nodes of the cluster see the folder of a sweep, and that it outlives this process.

    Raises:
        SpecError: Some do not, or it does not.
    """
    if sweep_folder.remote is not None and sweep_folder.remote.uri.startswith("memory:"):
        message = f"{sweep_folder} is this process's own: give a folder, or a URI such as s3://bucket/sweeps"
        raise SpecError([Problem(("storage",), message)])
    here = ray.get_runtime_context().get_node_id()
    others = {n["NodeID"]: n["NodeManagerAddress"] for n in ray.nodes() if n["Alive"] and n["NodeID"] != here}
    if sweep_folder.remote is not None or not others:
        return
    with tempfile.NamedTemporaryFile(dir=sweep_folder.local, prefix=".shared-") as file:
        asked = {_sees_on(node).remote(file.name): address for node, address in others.items()}
        answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=_ANSWER_S)
        blind = sorted(asked[answer] for answer in answered if not _seen(answer))
    if blind:
        raise SpecError([not_shared(str(sweep_folder.local), ", ".join(blind))])


def not_shared(folder: str, nodes: str) -> Problem:
    """Returns a problem that says which nodes do not see the folder of a sweep, and what to do."""
    mend = "give a folder that all nodes mount, or a URI such as s3://bucket/sweeps"
    return Problem(("storage",), f"{folder} is not on every node: {nodes} cannot see it; {mend}")


def _seen(answer: ray.ObjectRef[bool]) -> bool:
    try:
        return ray.get(answer)
    except RayError:
        return True  # the node was lost: what it saw does not matter


def _sees_on(node: str) -> Any:
    there = NodeAffinitySchedulingStrategy(node, soft=False)
    return ray.remote(os.path.exists).options(num_cpus=0, scheduling_strategy=there)
