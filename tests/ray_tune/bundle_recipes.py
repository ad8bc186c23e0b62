"""A recipe that uses Ray itself, imported as people do: at the top of the module."""

from __future__ import annotations

from typing import Any

import ray
import torch
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from xaytune.ray_tune.bundles import trial_placement_group
from xaytune.trainer.callbacks import TrainState
from xaytune.trial.run.trial import Trial


@ray.remote(num_cpus=1)
class _Elsewhere:
    def score(self) -> float:
        return 1.0


def trains_in_its_second_bundle(config: dict[str, Any], trial: Trial) -> TrainState:
    """Its score comes from an actor that it starts in what it reserves beside its own process."""
    second = PlacementGroupSchedulingStrategy(trial_placement_group(), placement_group_bundle_index=1)
    elsewhere = _Elsewhere.options(scheduling_strategy=second).remote()  # type: ignore[attr-defined]
    state = TrainState(global_step=1)
    state.metrics.update(score=ray.get(elsewhere.score.remote()), threads=torch.get_num_threads())
    trial.callbacks.fire("step_end", state)
    ray.kill(elsewhere)
    return state
