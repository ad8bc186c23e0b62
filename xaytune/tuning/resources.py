"""Resources: what a trial needs, what the cluster has, and how many trials that makes."""

from __future__ import annotations

import math
from collections.abc import Mapping

import ray
from ray.tune import PlacementGroupFactory

from xaytune.sweep.errors import Problem, SpecError

__all__ = ["bundle", "check_feasible", "max_concurrent", "placement"]

_RAY_NAMES = {"cpu": "CPU", "gpu": "GPU"}


def bundle(resources: Mapping[str, float]) -> dict[str, float]:
    """Returns resources under Ray's own names, without those that are not needed."""
    return {_RAY_NAMES.get(name, name): amount for name, amount in resources.items() if amount > 0}


def placement(resources: Mapping[str, float]) -> PlacementGroupFactory:
    """Returns what Tune is to reserve for a trial."""
    return PlacementGroupFactory([bundle(resources)])


def check_feasible(resources: Mapping[str, float]) -> None:
    """Checks that some node of the cluster could run a trial.

    Raises:
        SpecError: None ever could.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    needed = bundle(resources)
    if any(all(node.get(name, 0) >= amount for name, amount in needed.items()) for node in nodes):
        return
    largest = {name: max((node.get(name, 0) for node in nodes), default=0) for name in needed}
    got = ", ".join(f"{name} {amount:g}" for name, amount in resources.items())
    have = ", ".join(f"{name} {amount:g}" for name, amount in largest.items())
    raise SpecError(
        [
            Problem(
                ("resources_per_trial",),
                f"no node can ever run a trial (got {got}; nodes have at most {have})",
            )
        ]
    )


def max_concurrent(resources: Mapping[str, float]) -> int:
    """Returns how many trials the cluster has room for, at least one."""
    total: Mapping[str, float] = ray.cluster_resources()
    needed = bundle(resources)
    return max(1, min(math.floor(total.get(name, 0) / amount) for name, amount in needed.items()))
