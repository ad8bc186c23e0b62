"""From a spec to its search method: what is built in, and what a user names by reference."""

from __future__ import annotations

from typing import Any

from xaytune.errors import Problem, ProblemPath, SpecError
from xaytune.search.extension import Extension, Setting
from xaytune.search.method import SearchMethod
from xaytune.search.sampled import SampledMethod
from xaytune.search.samplers.sampler import Sampler
from xaytune.search.schedulers.scheduler import Scheduler
from xaytune.sweep.algorithms import CLASSES, ExtensionSpec, FifoSpec, Options, RandomSpec
from xaytune.sweep.references import look_up
from xaytune.sweep.spec import SweepSpec


def method_for(spec: SweepSpec) -> SearchMethod:
    """Returns a new search method for a sweep.

    Raises:
        SpecError: A reference names nothing of use, its options are wrong, or it cannot work in this sweep.
    """
    setting = _setting(spec)
    search, scheduler = _made(spec.search, "search"), _made(spec.scheduler, "scheduler")
    if isinstance(scheduler, SearchMethod):
        if spec.search != RandomSpec(seed=spec.search.seed):
            message = "the scheduler draws the configurations itself: give a seed only, search: {seed: 1}"
            raise SpecError([Problem(("search",), message)])
        return _begun(scheduler, setting)
    if isinstance(search, SearchMethod):
        if spec.scheduler != FifoSpec():
            raise SpecError([Problem(("scheduler",), "the search judges the trials itself: give no scheduler")])
        return _begun(search, setting)
    _check_kind(search, Sampler, "search")
    _check_kind(scheduler, Scheduler, "scheduler")
    return SampledMethod(setting, search, scheduler)  # type: ignore[arg-type]


def _setting(spec: SweepSpec) -> Setting:
    return Setting(
        objective=spec.objective,
        space=spec.space,
        seed=spec.search.seed,
        num_trials=spec.num_trials,
        early_stopping=not isinstance(spec.scheduler, FifoSpec),
        points_to_evaluate=tuple(spec.points_to_evaluate),
    )


def _made(options: Options, field: str) -> Extension:
    """Makes what options name."""
    algorithm = options.algorithm  # type: ignore[attr-defined]
    if not isinstance(options, ExtensionSpec):
        built_in: type[Extension] = _find(CLASSES[algorithm], (field, "algorithm"))
        return built_in(**options.model_dump(exclude_unset=True))
    found: type[Any] = algorithm if isinstance(algorithm, type) else _find(algorithm, (field, "algorithm"))
    if not issubclass(found, Extension):
        message = f"{found.__qualname__} is no Sampler, Scheduler or SearchMethod with options: inherit from one"
        raise SpecError([Problem((field, "algorithm"), message)])
    try:
        made: Extension = found(**options.options)
        return made
    except TypeError as error:
        raise SpecError([Problem((field, "algorithm"), f"{algorithm} cannot be made: {error}")]) from None
    except SpecError as error:
        raise SpecError(problem.below(field) for problem in error.problems) from None


def _find(reference: str, path: ProblemPath) -> type[Any]:
    """Returns the class that ``module:Class`` names."""
    try:
        found = look_up(reference)
    except ValueError as error:
        raise SpecError([Problem(path, str(error))]) from error
    if not isinstance(found, type):
        raise SpecError([Problem(path, f"must name a class (got {found!r})")])
    return found


def _begun(method: Extension, setting: Setting) -> SearchMethod:
    method.begin(setting)
    assert isinstance(method, SearchMethod)
    return method


def _check_kind(made: Extension, wanted: type[Extension], field: str) -> None:
    if not isinstance(made, wanted):
        message = f"must be a {wanted.__name__} here (got {type(made).__qualname__})"
        raise SpecError([Problem((field, "algorithm"), message)])
