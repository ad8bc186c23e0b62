"""GPUs that a machine has and a sweep does not use: trials that reserve none see none."""

from __future__ import annotations

import os
from pathlib import Path

from xaytune.sweep.spec import SweepSpec


def count_gpus(devices: Path = Path("/dev")) -> int:
    """Counts this machine's NVIDIA GPUs that its processes may see, without any library of theirs."""
    there = sum(path.name.removeprefix("nvidia").isdigit() for path in devices.glob("nvidia*"))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return there
    named = [name for name in visible.split(",") if name.strip() not in ("", "-1", "NoDevFiles")]
    return min(there, len(named))


def unused_gpus(spec: SweepSpec, gpus: float) -> str | None:
    """Returns a message that there are GPUs and no trial uses one; None where that is not so.

    Args:
        spec: The sweep.
        gpus: How many there are.
    """
    if gpus < 1 or any(bundle.get("gpu", 0) > 0 for bundle in spec.bundles):
        return None
    there = "a GPU is" if gpus == 1 else f"{gpus:g} GPUs are"
    return (
        f"{there} there, and trials see none, for they reserve none: resources_per_trial: {{cpu: 1, gpu: 1}} "
        "gives each a GPU, and gpu: 0.25 shares one among four"
    )
