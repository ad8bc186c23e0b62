"""Ray Tune's own objects in a sweep, ``tune.uniform(0, 1)`` and ``ASHAScheduler()``, as options of a spec."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ray.tune import schedulers
from ray.tune.search import sample

from xaytune.errors import Problem, ProblemPath, SpecError

# Options of Ray's schedulers that have one value here.
_FIXED = {"_stop_last_trials": True, "_hard_stop": True, "_min_time_slice": 0}
# What Ray counts results in is epochs: a trial reports once an epoch.
_TIME_ATTRS = {"training_iteration": "epoch", "epoch": "epoch", "global_step": "global_step"}


def space_from_ray(space: Any) -> Any:
    """Replaces every object of Ray's in a space, at any depth, by the domain of a spec.

    The values of a ``choice`` or ``grid`` may also be a range, or an array of one dimension.

    Raises:
        SpecError: An object has no counterpart.
    """
    problems: list[Problem] = []
    plain = _plain(space, (), problems)
    if problems:
        raise SpecError(problem.below("space") for problem in problems)
    return plain


def scheduler_from_ray(scheduler: Any, metric: str, mode: str) -> Any:
    """Returns the options of a scheduler of Ray's, where it has an equal here; anything else as it is.

    Args:
        scheduler: The scheduler.
        metric: What the sweep optimises.
        mode: Whether that is to be ``max`` or ``min``.

    Raises:
        SpecError: It has no equal, counts time in what is not counted here, or optimises something else.
    """
    if not isinstance(scheduler, schedulers.TrialScheduler):
        return scheduler
    options, kind = vars(scheduler), type(scheduler)
    if kind is schedulers.FIFOScheduler:
        return {"algorithm": "fifo"}
    found: dict[str, Any] | None = None
    if kind is schedulers.AsyncHyperBandScheduler:
        first, _ = options["_brackets"][0]._rungs[-1]
        found = {"algorithm": "asha", "grace_period": int(first), "max_t": int(options["_max_t"])}
        found["reduction_factor"] = options["_reduction_factor"]
    elif kind is schedulers.HyperBandScheduler:
        found = {"algorithm": "hyperband", "max_t": options["_max_t_attr"], "reduction_factor": options["_eta"]}
    elif kind is schedulers.MedianStoppingRule:
        found = {"algorithm": "median", "grace_period": int(options["_grace_period"])}
        found["min_samples_required"] = options["_min_samples_required"]
    axis = _TIME_ATTRS.get(str(options.get("_time_attr")))
    if found is None or axis is None:
        message = (
            f"has no equal here (got Ray's {kind.__name__}, time_attr {options.get('_time_attr')!r}): name one by "
            "its options, such as {algorithm: asha, time_attr: epoch, max_t: 27}"
        )
        raise SpecError([Problem(("scheduler",), message)])
    own, of_sweep = (options["_metric"] or metric, options["_mode"] or mode), (metric, mode)
    if own != of_sweep:
        theirs, ours = (f"{mode} {metric}" for metric, mode in (own, of_sweep))
        message = f"is of another sweep (got {theirs}, the sweep is of {ours}): give it neither metric nor mode"
        raise SpecError([Problem(("scheduler",), message)])
    told = [f"{name[1:]}={options[name]}" for name, fixed in _FIXED.items() if options.get(name, fixed) != fixed]
    if kind is schedulers.AsyncHyperBandScheduler and len(options["_brackets"]) > 1:
        told.append(f"brackets={len(options['_brackets'])}")
    if told:
        message = f"has no equal here with {', '.join(told)} (got Ray's {kind.__name__}): leave that out"
        raise SpecError([Problem(("scheduler",), message)])
    return {**found, "time_attr": axis}


def _plain(value: Any, path: ProblemPath, problems: list[Problem]) -> Any:
    if isinstance(value, Mapping):
        if list(value) == ["grid_search"]:
            return {"grid": _choices(value["grid_search"], (*path, "grid_search"), problems)}
        lists = {key: _listed(item) if key in ("choice", "grid") else item for key, item in value.items()}
        return {key: _plain(item, (*path, key), problems) for key, item in lists.items()}
    if type(value) in (list, tuple):  # others are the spec's to refuse: not all can be made of items
        return type(value)(_plain(item, (*path, index), problems) for index, item in enumerate(value))
    if not isinstance(value, sample.Domain):
        return value
    if isinstance(value, sample.Categorical):
        return {"choice": _choices(value.categories, (*path, "choice"), problems)}
    domain = _domain(value)
    if domain is None:
        names = "uniform, loguniform, quniform, randint, lograndint, choice and grid_search"
        problems.append(Problem(path, f"of Ray's domains {names} are known (got {value.domain_str})"))
    return domain


def _listed(values: Any) -> Any:
    """A range or an array as a list; anything else as it is."""
    if isinstance(values, range):
        return list(values)
    return values.tolist() if getattr(values, "ndim", 0) == 1 else values


def _choices(values: Any, path: ProblemPath, problems: list[Problem]) -> Any:
    message = "takes values, not domains: give each its own name and a 'when'"
    problems += [Problem(place, message) for place in _domains_in(values, path)]
    is_list = isinstance(values, Iterable) and not isinstance(values, (str, bytes, Mapping))
    return list(values) if is_list else values  # which the spec refuses


def _domains_in(value: Any, path: ProblemPath) -> Iterator[ProblemPath]:
    """Yields the places of Ray's domains in a value."""
    if isinstance(value, sample.Domain):
        yield path
    elif isinstance(value, (Mapping, list, tuple)):
        for key, item in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from _domains_in(item, (*path, key))


def _domain(value: sample.Domain) -> dict[str, Any] | None:
    sampler = value.get_sampler()
    step = None
    if isinstance(sampler, sample.Quantized):
        step, sampler = sampler.q, sampler.get_sampler()
    log = isinstance(sampler, sample.LogUniform)
    if not (log or isinstance(sampler, sample.Uniform)):
        return None
    if isinstance(value, sample.Float):
        if step is None:
            return {"loguniform" if log else "uniform": [value.lower, value.upper]}
        return None if log else {"quniform": [value.lower, value.upper, step]}
    if isinstance(value, sample.Integer) and step is None:
        return {"lograndint" if log else "randint": [value.lower, value.upper]}
    return None
