"""The bundles of a trial, for a recipe that starts actors or tasks of Ray's in what its trial reserves."""

from __future__ import annotations

import os

import ray
from ray.util.placement_group import PlacementGroup

# The variable in which a trial finds its placement group: it is no process of Ray's, which would know it.
PLACEMENT_GROUP = "XAYTUNE_PLACEMENT_GROUP"


def trial_placement_group() -> PlacementGroup:
    """Returns the placement group of this trial, and connects to the sweep's Ray.

    Its bundles are those of ``resources_per_trial``, the first of which is the trial's own process.

    Raises:
        RuntimeError: This process is no trial of a sweep.
    """
    group = os.environ.get(PLACEMENT_GROUP)
    if group is None:
        raise RuntimeError("this process is no trial of a sweep: it has no placement group")
    ray.init(ignore_reinit_error=True, log_to_driver=False)
    return PlacementGroup(ray.PlacementGroupID(bytes.fromhex(group)))
