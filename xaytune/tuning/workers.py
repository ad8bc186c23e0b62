"""Worker processes: made ready for the first trials while there are none yet."""

from __future__ import annotations

import os

import ray

from xaytune.sweep.errors import Problem, SpecError
from xaytune.sweep.spec import Reference, SweepSpec
from xaytune.tuning.recipe import check_references, use_import_paths
from xaytune.tuning.resources import max_concurrent

__all__ = ["warm_up"]


def warm_up(spec: SweepSpec) -> None:
    """Lets as many workers as there will be trials import what trials need, and checks the recipe there.

    Ray gives idle workers to the actors that it starts next. The driver itself imports no torch.

    Raises:
        SpecError: The recipe or a callback is not there, or does not take what it will be given.
    """
    workers = min(spec.max_concurrent_trials or spec.num_trials, max_concurrent(spec.resources_per_trial))
    prepare = ray.remote(num_cpus=0)(_prepare)
    references = spec.recipe, list(spec.callbacks)
    found = ray.get([prepare.remote(*references, os.getcwd()) for _ in range(min(workers, spec.num_trials))])
    if found and found[0]:
        raise SpecError(found[0])


def _prepare(recipe: Reference, callbacks: list[Reference], folder: str) -> list[Problem]:
    """Runs in a worker: imports, and returns what is wrong."""
    import xaytune.tuning.run
    import xaytune.tuning.trainable  # noqa: F401

    use_import_paths([folder])
    try:
        check_references(recipe, callbacks)
    except SpecError as error:
        return error.problems
    return []
