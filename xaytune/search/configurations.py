"""Configurations of a space: drawn at random, and told apart."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from random import Random
from typing import Any

from xaytune.sweep.domains import Categorical, Domain, Float, Integer
from xaytune.sweep.space import Space
from xaytune.sweep.values import key, same


def seeded(*parts: int) -> Random:
    """Returns a random generator that is a sweep's own: the same for the same numbers."""
    return Random(":".join(map(str, parts)))


def draw_value(domain: Domain, rng: Random) -> Any:
    """Draws a value of a domain."""
    if isinstance(domain, Categorical):
        return rng.choice(domain.choices)
    if isinstance(domain, Float) and domain.q is not None:
        return domain.at_step(rng.randrange(domain.step_of(domain.high) + 1))
    if isinstance(domain, Integer) and not domain.log:
        return rng.randrange(domain.low, domain.high)
    if not domain.log:
        return hold(domain, rng.uniform(domain.low, domain.high))
    # Integers evenly over the logarithm: each has the width from itself to the next.
    value = math.exp(rng.uniform(math.log(domain.low), math.log(domain.high)))
    return hold(domain, math.floor(value) if isinstance(domain, Integer) else value)


def hold(domain: Domain, value: Any) -> Any:
    """Returns the value of a numeric domain that is nearest to a number; a choice stays what it is."""
    if isinstance(domain, Categorical):
        return value
    if isinstance(domain, Integer):
        return min(max(round(value), domain.low), domain.high - 1)
    if domain.q is not None:
        return domain.at_step(domain.step_of(value))
    return min(max(float(value), domain.low), domain.high)


def draw_configuration(space: Space, rng: Random, fixed: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Draws a configuration of a space.

    Args:
        space: The space.
        rng: What it is drawn from.
        fixed: Parameters, by dotted name, that have a value already.
    """
    known = fixed or {}
    return space.configure(lambda p: known[p.name] if p.name in known else draw_value(p.domain, rng))


def distance(space: Space, one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """Returns how far two configurations are apart: each parameter adds up to 1, the whole of its domain.

    One of them may be of another space: a parameter adds 1 where one lacks it, or has no number, or no logarithm.
    """
    here, there = space.values(one), space.values(other)
    both = [p for p in space.parameters if p.name in here and p.name in there]
    apart = sum(_apart(p.domain, here[p.name], there[p.name]) for p in both)
    return apart + len(here.keys() ^ there.keys())


def _apart(domain: Domain, one: Any, other: Any) -> float:
    if isinstance(domain, Categorical):
        return float(not same(one, other))
    scale = math.log if domain.log else float
    try:
        return abs(scale(one) - scale(other)) / (scale(domain.high) - scale(domain.low))
    except (TypeError, ValueError):
        return 1.0


def configuration_key(space: Space, config: Mapping[str, Any]) -> int:
    """Returns a number that two configurations share only where they are the same."""
    values = space.values(config)
    keys = [(p.name, _key(p.domain, values[p.name])) for p in space.parameters if p.name in values]
    text = json.dumps(keys, default=str)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def _key(domain: Domain, value: Any) -> Any:
    if isinstance(domain, Categorical):
        return key(value)  # which tells (1, 2) from [1, 2]
    if isinstance(domain, Float) and domain.q is not None:
        return domain.step_of(value)  # the same step, however it was computed
    return value
