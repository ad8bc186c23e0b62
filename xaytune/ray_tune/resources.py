"""Resources: what a trial needs, what the cluster has or may get, and how many trials that makes."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence

import ray
from ray.tune import PlacementGroupFactory

from xaytune.errors import Problem, SpecError
from xaytune.ray_tune.autoscaler import addable_nodes
from xaytune.sweep.spec import SweepSpec

# A resource that Ray gives to the head alone.
_HEAD = "node:__internal_head__"
_RAY_NAMES = {"cpu": "CPU", "gpu": "GPU"}
# Seconds between two looks at what the cluster has.
_EVERY_S = 2.0
_Resources = Mapping[str, float]


def _needs(spec: SweepSpec) -> list[dict[str, float]]:
    """The bundles of a trial under Ray's own names, without what is not needed."""
    return [
        {_RAY_NAMES.get(name, name): amount for name, amount in bundle.items() if amount > 0}
        for bundle in spec.bundles
    ]


def placement(spec: SweepSpec) -> PlacementGroupFactory:
    """Returns what Tune is to reserve for a trial."""
    return PlacementGroupFactory(_needs(spec), strategy=spec.placement_strategy)


def check_feasible(spec: SweepSpec) -> None:
    """Checks that the nodes of the cluster, or those that its autoscaler may add, could run a trial.

    Raises:
        SpecError: None ever could.
    """
    addable = addable_nodes()
    there = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    nodes = [*there, *addable.nodes]
    needs, whole = _needs(spec), _total(_needs(spec))
    for need in [whole] if spec.placement_strategy == "STRICT_PACK" else needs:
        if not any(_has(node, need) for node in nodes):
            largest = {name: max((node.get(name, 0) for node in nodes), default=0) for name in need}
            raise _infeasible(
                f"no node can ever run a trial (got {_listed(need)}; nodes have at most {_listed(largest)})"
            )
    have = {name: sum(node.get(name, 0) for node in there) + addable.most(name) for name in whole}
    if not _has(have, whole):
        raise _infeasible(f"no trial can ever run (got {_listed(whole)}; the cluster has {_listed(have)})")


def _has(have: _Resources, need: _Resources) -> bool:
    return all(have.get(name, 0) >= amount for name, amount in need.items())


def _infeasible(message: str) -> SpecError:
    return SpecError([Problem(("resources_per_trial",), message)])


class Capacity:
    """How many trials fit into the cluster, or processes that train several: at least one.

    It changes as nodes join and leave. Where the cluster has an autoscaler, the head and all that it may add
    count, if that is more than what is there: nodes come because trials wait for them.

    Args:
        spec: The sweep.
    """

    def __init__(self, spec: SweepSpec) -> None:
        self._need = _total(_needs(spec))
        limits = (spec.max_concurrent_trials, spec.num_trials)
        self._at_most = min((limit for limit in limits if limit is not None), default=sys.maxsize)
        addable = addable_nodes()
        heads = [node["Resources"] for node in ray.nodes() if node["Alive"] and _HEAD in node["Resources"]]
        self._in_the_end = {n: sum(head.get(n, 0) for head in heads) + addable.most(n) for n in self._need}
        self._fitting = self._count()
        self._counted = time.monotonic()

    def count(self) -> int:
        """Returns the number."""
        if time.monotonic() >= self._counted + _EVERY_S:
            self._fitting, self._counted = self._count(), time.monotonic()
        return self._fitting

    def _count(self) -> int:
        have = ray.cluster_resources()
        most = {name: max(have.get(name, 0.0), self._in_the_end[name]) for name in self._need}
        # Ray counts in ten thousandths: ten trials of 0.1 fit into 1, whatever floats make of it.
        fitting = (int(most[name] / need + 1e-4) for name, need in self._need.items())
        return max(1, min(self._at_most, *fitting))


def _total(needs: Sequence[_Resources]) -> dict[str, float]:
    return {name: sum(need.get(name, 0) for need in needs) for need in needs for name in need}


def _listed(resources: _Resources) -> str:
    names = {theirs: ours for ours, theirs in _RAY_NAMES.items()}
    return ", ".join(f"{names.get(name, name)} {amount:g}" for name, amount in resources.items())
