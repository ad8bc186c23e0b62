"""What a sweep will do: its trials, what they reserve, when they are judged, and its cost at most."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from xaytune.report.terms import configuration
from xaytune.search.build import method_for
from xaytune.search.method import NewTrial
from xaytune.sweep.algorithms import AshaSpec, CurvesSpec, PopulationSpec
from xaytune.sweep.numbers import trials
from xaytune.sweep.space import dotted
from xaytune.sweep.spec import SweepSpec
from xaytune.sweep.time_axis import levels_of

if TYPE_CHECKING:
    from xaytune.in_process.timing import Timing


def plan(spec: SweepSpec) -> str:
    """Writes what a sweep will do."""
    resources = " and ".join(
        ", ".join(f"{name} {amount:g}" for name, amount in bundle.items()) for bundle in spec.bundles
    )
    curves = isinstance(spec.scheduler, CurvesSpec)
    most = spec.max_concurrent_trials
    at_once = f"{most} at once" if most else "as many at once as there is room for"
    lines = [
        f"trials      {_count(spec)}, {at_once}; {_who(spec)} reserves {resources}",
        f"search      {'curves' if curves else spec.search.algorithm}, seed {spec.search.seed}",
        f"metric      {spec.metric}, {spec.mode}",
    ]
    if spec.space.constants:
        lines.append(f"in all      {configuration(spec.space.constants)} (the same in all trials)")
    return "\n".join([*lines, *_judged(spec)])


def first_configurations(spec: SweepSpec, most: int) -> list[dict[str, Any]]:
    """Returns the configurations that a sweep begins with, so many at most.

    Raises:
        SpecError: The search or the scheduler cannot work in this sweep.
    """
    method = method_for(spec)
    configs: list[dict[str, Any]] = []
    while len(configs) < most and isinstance(chosen := method.next(), NewTrial):
        configs.append(chosen.config)
    return configs


def samples(spec: SweepSpec, configs: Sequence[Mapping[str, Any]]) -> str:
    """Writes the first configurations of a sweep, without what is the same in all."""
    lines = [f"the first {trials(len(configs))}, as the search draws them while it knows no result:"]
    for number, config in enumerate(configs):
        differing = {name: value for name, value in dotted(config).items() if name not in spec.space.constants}
        lines.append(f"  {number:>3}  {configuration(differing)}")
    return "\n".join(lines)


def cost(spec: SweepSpec, timing: Timing) -> str:
    """Writes what a sweep costs at most, in hours of training.

    Args:
        spec: The sweep.
        timing: How long its first trial took, on this machine.
    """
    unit = timing.axis.unit
    if timing.unit_s is None:
        return f"timed       the first trial ended before it had trained enough {unit}s to time them"
    one = "a step" if unit == "step" else "an epoch"
    lines = [f"timed       {timing.unit_s:.3g} s {one} here, and {timing.before_s:.2g} s before the first"]
    units = spec.max_t or timing.units
    if units is None or spec.num_trials is None:
        return lines[0]
    hours = spec.num_trials * (timing.before_s + units * timing.unit_s) / 3600
    at_once = min(spec.num_trials, spec.max_concurrent_trials or _room(spec) or 1)
    shared = f"; {hours / at_once:.2g} h with {at_once} at once" if at_once > 1 else ""
    stopped = ", were no trial stopped early" if spec.scheduler.algorithm != "fifo" else ""
    return "\n".join([*lines, f"cost        at most {hours:.2g} h of training{stopped}{shared}"])


def _count(spec: SweepSpec) -> str:
    """The number of trials, and how it came about where a grid multiplies it."""
    if spec.num_trials is None:
        return "as many as the budget allows"
    points = spec.num_trials // spec.num_samples
    drawn = "1 sample" if spec.num_samples == 1 else f"{spec.num_samples} samples"
    product = f" ({drawn} of each of {points} grid points)" if points > 1 else ""
    return f"{spec.num_trials}{product}"


def _who(spec: SweepSpec) -> str:
    """What reserves the resources: a trial, or the process of several."""
    if not spec.fuses:
        return "each"
    many = "as many as are fastest" if spec.fused == "auto" else f"up to {spec.fused}"
    return f"fused, each process trains {many}, and"


def _judged(spec: SweepSpec) -> list[str]:
    """When trials are judged, and what is trained at most."""
    scheduler, max_t, axis = spec.scheduler, spec.max_t, spec.axis
    judged = ""
    if isinstance(scheduler, AshaSpec):
        rungs = ", ".join(map(str, scheduler.rungs))
        share = f"1/{scheduler.reduction_factor:g}"
        judged = f": judged after {rungs} {axis.unit}s, about the best {share} continue each time"
    if isinstance(scheduler, CurvesSpec):
        levels = ", ".join(map(str, levels_of(scheduler.grace_period, max_t))) if max_t else ""
        when = (
            f"after {levels} {axis.unit}s" if max_t else f"at levels up to the {axis.unit}s that the recipe trains"
        )
        judged = f": judged {when}, against what a new configuration promises"
    if isinstance(scheduler, PopulationSpec):
        changed = ", ".join(scheduler.hyperparam_mutations or ["every parameter that all trials have"])
        judged = (
            f": every {axis.count(scheduler.perturbation_interval)} the worst {scheduler.quantile_fraction:.0%} "
            f"of the trials go on from the best, and change {changed}"
        )
    lines = [f"scheduler   {scheduler.algorithm}{judged}"]
    if spec.without_scheduler is not None:
        lines.append(f"at most     what the recipe trains: {spec.without_scheduler}")
    elif isinstance(scheduler, CurvesSpec) and max_t is None:
        lines.append("at most     what the recipe trains, were no trial stopped early")
    elif max_t is None:
        lines.append("at most     what the recipe trains: the scheduler ends no trial at a set time")
    elif spec.num_trials is not None:
        lines.append(f"at most     {axis.count(spec.num_trials * max_t)}, were no trial stopped early")
    return lines


def _room(spec: SweepSpec) -> int | None:
    """How many trials have room on this machine, where they reserve nothing but its CPUs."""
    reserved = spec.bundles[0]
    if len(spec.bundles) > 1 or {name for name, amount in reserved.items() if amount} != {"cpu"}:
        return None
    return int(len(os.sched_getaffinity(0)) / reserved["cpu"])
