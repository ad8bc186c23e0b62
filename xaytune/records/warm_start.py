"""Warm starts: the best configurations of earlier sweeps, to be tried first in another."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

from xaytune.errors import JournalError, Problem, SpecError
from xaytune.records.results import Results
from xaytune.records.sweep_folder import find_sweep
from xaytune.sweep import values
from xaytune.sweep.objective import Objective
from xaytune.sweep.space import Space
from xaytune.sweep.spec import SweepSpec

# Configurations that are taken in all, at most.
_MOST = 5


def warm_started(spec: SweepSpec, storage: str) -> SweepSpec:
    """Returns a spec whose `points_to_evaluate` are followed by the best configurations of its `warm_start`.

    Args:
        spec: The spec.
        storage: Where the names of earlier sweeps are looked for.

    Raises:
        SpecError: There is no such sweep, or no configuration of theirs can be tried.
    """
    if not spec.warm_start:
        return spec
    earlier = best_of_earlier(spec.warm_start, storage, spec.space, spec.objective)
    if not earlier:
        message = f"no trial of {', '.join(spec.warm_start)} has a value, and a configuration of this space"
        raise SpecError([Problem(("warm_start",), message)])
    given = spec.points_to_evaluate
    room = None if spec.num_trials is None else max(0, spec.num_trials - len(given))
    return spec.model_copy(update={"points_to_evaluate": [*given, *earlier[:room]]})


def best_of_earlier(
    sweeps: Iterable[str], storage: str, space: Space, objective: Objective
) -> list[dict[str, Any]]:
    """Returns the best configurations of earlier sweeps: of each sweep its best, then of each its second best.

    Args:
        sweeps: Names in the storage, folders or URIs.
        storage: Where names are looked for.
        space: The space that they must be of. A configuration that is not is left out.
        objective: What they are tried for. That of an earlier sweep may be another metric.

    Raises:
        SpecError: There is no such sweep, or what is best in one of them is worst here.
    """
    earlier = {sweep: _results(sweep, number, storage) for number, sweep in enumerate(sweeps)}
    for sweep, results in earlier.items():
        theirs = results.sweep.objective
        if theirs.metric == objective.metric and theirs.mode != objective.mode:
            message = f"the best of {sweep} are the worst here: its mode is {theirs.mode} (got {objective.mode})"
            raise SpecError([Problem(("warm_start",), message)])
    ranked = [_ranked(results, space) for results in earlier.values()]
    found: dict[str, dict[str, Any]] = {}
    for config in filter(None, itertools.chain.from_iterable(itertools.zip_longest(*ranked))):
        found.setdefault(values.key(config), config)
    return list(found.values())[:_MOST]


def _results(sweep: str, number: int, storage: str) -> Results:
    try:
        return Results(find_sweep(sweep, storage))
    except JournalError as error:
        raise SpecError([Problem(("warm_start", number), str(error))]) from None


def _ranked(results: Results, space: Space) -> list[dict[str, Any]]:
    """The configurations of a sweep that are of the space, best first."""
    ranked = []
    for trial in results.sweep.ranked():
        try:
            ranked.append(space.complete(trial.best_config))
        except (SpecError, ValueError):
            continue  # another space
    return ranked
