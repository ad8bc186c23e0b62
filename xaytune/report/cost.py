"""What a sweep costs at most, by how long a part of one trial took."""

from __future__ import annotations

import os

from xaytune.in_process.timing import Timing
from xaytune.sweep.spec import SweepSpec
from xaytune.sweep.time_axis import TimeAxis

__all__ = ["cost"]


def cost(spec: SweepSpec, timing: Timing) -> str:
    """Writes what a sweep costs at most, in hours of training.

    Args:
        spec: The sweep.
        timing: How long its first trial took, on this machine.
    """
    unit = TimeAxis(getattr(spec.scheduler, "time_attr", "epoch")).unit
    if timing.unit_s is None:
        return f"timed       the first trial ended before it had trained enough {unit}s to time them"
    one = "a step" if unit == "step" else "an epoch"
    lines = [f"timed       {timing.unit_s:.3g} s {one} here, and {timing.before_s:.2g} s before the first"]
    units = getattr(spec.scheduler, "max_t", None) or timing.units
    if units is None or spec.num_trials is None:
        return lines[0]
    hours = spec.num_trials * (timing.before_s + units * timing.unit_s) / 3600
    at_once = min(spec.num_trials, spec.max_concurrent_trials or _room(spec) or 1)
    shared = f"; {hours / at_once:.2g} h with {at_once} at once" if at_once > 1 else ""
    stopped = ", were no trial stopped early" if spec.scheduler.algorithm != "fifo" else ""
    return "\n".join([*lines, f"cost        at most {hours:.2g} h of training{stopped}{shared}"])


def _room(spec: SweepSpec) -> int | None:
    """How many trials have room on this machine, where they reserve nothing but its CPUs."""
    reserved = spec.bundles[0]
    if len(spec.bundles) > 1 or {name for name, amount in reserved.items() if amount} != {"cpu"}:
        return None
    return int(len(os.sched_getaffinity(0)) / reserved["cpu"])
