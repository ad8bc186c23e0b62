"""What a sweep will do: its trials, what they reserve, when they are judged, and its cost at most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from xaytune.report.terms import configuration
from xaytune.report.text import trials
from xaytune.sweep.algorithms import AshaSpec
from xaytune.sweep.space import dotted
from xaytune.sweep.spec import SweepSpec
from xaytune.sweep.time_axis import TimeAxis

__all__ = ["plan", "samples"]


def plan(spec: SweepSpec) -> str:
    """Writes what a sweep will do."""
    resources = " and ".join(
        ", ".join(f"{name} {amount:g}" for name, amount in bundle.items()) for bundle in spec.bundles
    )
    at_once = spec.max_concurrent_trials or "as many as there is room for"
    lines = [
        f"trials      {spec.num_trials}{_product(spec)}, {at_once} at once; each reserves {resources}",
        f"search      {spec.search.algorithm}, seed {spec.search.seed}",
        f"metric      {spec.metric}, {spec.mode}",
    ]
    if spec.space.constants:
        lines.append(f"in all      {configuration(spec.space.constants)} (the same in all trials)")
    scheduler = spec.scheduler
    if not isinstance(scheduler, AshaSpec):
        lines.append(f"scheduler   {scheduler.algorithm}")
        lines.append("at most     what the recipe trains: the scheduler ends no trial at a set time")
        return "\n".join(lines)
    axis, rungs = TimeAxis(scheduler.time_attr), ", ".join(map(str, scheduler.rungs))
    share = f"1/{scheduler.reduction_factor:g}"
    lines.append(f"scheduler   asha: judged after {rungs} {axis.unit}s, about the best {share} continue each time")
    lines.append(f"at most     {axis.count(spec.num_trials * scheduler.max_t)}, were no trial stopped early")
    return "\n".join(lines)


def samples(spec: SweepSpec, configs: Sequence[Mapping[str, Any]]) -> str:
    """Writes the first configurations of a sweep, without what is the same in all."""
    lines = [f"the first {trials(len(configs))}, as the search draws them while it knows no result:"]
    for number, config in enumerate(configs):
        differing = {name: value for name, value in dotted(config).items() if name not in spec.space.constants}
        lines.append(f"  {number:>3}  {configuration(differing)}")
    return "\n".join(lines)


def _product(spec: SweepSpec) -> str:
    """How the number of trials came about, where a grid multiplies it."""
    points = spec.num_trials // spec.num_samples
    return f" ({spec.num_samples} samples of each of {points} grid points)" if points > 1 else ""
