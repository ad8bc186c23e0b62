"""Search spaces written with Ray Tune's own objects, ``tune.uniform(0, 1)``, as those of a spec."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray import tune
from ray.tune.search import sample

from xaytune.errors import Path, Problem, SpecError
from xaytune.sweep.domains import Categorical, Domain, Integer

__all__ = ["from_ray", "to_ray"]


def from_ray(space: Mapping[str, Any]) -> dict[str, Any]:
    """Replaces every object of Ray's in a space, at any depth, by the domain of a spec.

    Raises:
        SpecError: An object has no counterpart.
    """
    problems: list[Problem] = []
    plain = _plain(space, (), problems)
    if problems:
        raise SpecError(problems)
    return dict(plain)


def to_ray(domain: Domain) -> Any:
    """Returns Ray's object for a domain; a list for choices, which have neighbours then."""
    if isinstance(domain, Categorical):
        return list(domain.choices)
    if isinstance(domain, Integer):
        return (tune.lograndint if domain.log else tune.randint)(domain.low, domain.high)
    if domain.q is not None:
        return tune.quniform(domain.low, domain.high, domain.q)
    return (tune.loguniform if domain.log else tune.uniform)(domain.low, domain.high)


def _plain(value: Any, path: Path, problems: list[Problem]) -> Any:
    if isinstance(value, Mapping):
        if list(value) == ["grid_search"]:
            return {"grid": list(value["grid_search"])}
        return {key: _plain(item, (*path, key), problems) for key, item in value.items()}
    if not isinstance(value, sample.Domain):
        return value
    domain = _domain(value)
    if domain is None:
        names = "uniform, loguniform, quniform, randint, lograndint, choice and grid_search"
        problems.append(Problem(path, f"of Ray's domains {names} are known (got {value.domain_str})"))
    return domain


def _domain(value: sample.Domain) -> dict[str, Any] | None:
    sampler = value.get_sampler()
    step = None
    if isinstance(sampler, sample.Quantized):
        step, sampler = sampler.q, sampler.get_sampler()
    log = isinstance(sampler, sample.LogUniform)
    if not (log or isinstance(sampler, sample.Uniform)):
        return None
    if isinstance(value, sample.Categorical):
        return {"choice": list(value.categories)}
    if isinstance(value, sample.Float):
        if step is None:
            return {"loguniform" if log else "uniform": [value.lower, value.upper]}
        return None if log else {"quniform": [value.lower, value.upper, step]}
    if isinstance(value, sample.Integer) and step is None:
        return {"lograndint" if log else "randint": [value.lower, value.upper]}
    return None
