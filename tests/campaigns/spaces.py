"""Random spaces under every sampler and scheduler: each configuration that is ever given is one of the space."""

from __future__ import annotations

import math
import random
import sys
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from tests.sweep.values_to_import import Model, Optimizer
from xaytune.errors import SpecError
from xaytune.search.build import method_for
from xaytune.search.method import NewTrial
from xaytune.search.replay import replay
from xaytune.sweep.spec import SweepSpec
from xaytune.sweep.values import same, text
from xaytune.testing.playing import play

# Equal values of different types, and values that JSON has no word for.
_CHOICES: tuple[tuple[Any, ...], ...] = (
    (0, False),
    (1, 1.0, True),
    ("a", None, ""),
    ((1, 2), [1, 2]),
    ({1: "a"}, {"1": "a"}),
    (math.inf, 1.0),
    (Optimizer.SGD, Optimizer.ADAM),
    (Model, Model.Block, None),
    (np.float32(0.5), 0.5),
    ({"name": "sgd", "nesterov": True}, {"name": "adam"}),
)
_SAMPLERS = ("random", "tpe", "qmc", "cmaes", "gp", "grid")
_SCHEDULERS: tuple[Mapping[str, Any], ...] = (
    {"algorithm": "fifo"},
    {"algorithm": "asha", "max_t": 9},
    {"algorithm": "median"},
    {"algorithm": "hyperband", "max_t": 9},
    {"algorithm": "pbt", "perturbation_interval": 2, "quantile_fraction": 0.5},
    {"algorithm": "pbt", "perturbation_interval": 3, "resample_probability": 1, "synch": True},
)


def run(runs: int, seed: int) -> None:
    """Plays sweeps over random spaces, and resumes each from its journal, cut at random, with more samples.

    Args:
        runs: How many.
        seed: What they are drawn from.

    Raises:
        AssertionError: A configuration is none of its space.
    """
    kinds: Counter[str] = Counter()
    for number in range(runs):
        draw = random.Random(f"{seed}-{number}")
        spec, wider = _specs(draw)
        kinds[f"{spec.search.algorithm} under {spec.scheduler.algorithm}"] += 1
        try:
            kinds["configurations"] += _check(spec, wider, draw)
        except Exception as error:
            raise AssertionError(
                f"run {number} of seed {seed}: {text(spec.space.raw)}, {spec.scheduler}"
            ) from error
    print(", ".join(f"{kind}: {count}" for kind, count in sorted(kinds.items())))
    sys.stdout.flush()


def _specs(draw: random.Random) -> tuple[SweepSpec, SweepSpec]:
    """A spec, and the same with more samples; what is refused is drawn again."""
    while True:
        options: dict[str, Any] = {
            "recipe": "a:b",
            "metric": "m",
            "mode": draw.choice(["max", "min"]),
            "space": _space(draw),
            "search": {"algorithm": draw.choice(_SAMPLERS), "seed": draw.randint(0, 99)},
            "scheduler": draw.choice(_SCHEDULERS),
            "num_samples": draw.randint(1, 12),
        }
        if options["search"]["algorithm"] in ("tpe", "gp", "cmaes"):
            options["search"]["n_startup_trials"] = 2
        if options["search"]["algorithm"] == "gp":
            options["num_samples"] = 4  # its model takes a second each
        try:
            return SweepSpec.parse(options), SweepSpec.parse(
                {**options, "num_samples": options["num_samples"] + 3}
            )
        except SpecError:
            continue


def _space(draw: random.Random) -> dict[str, Any]:
    space: dict[str, Any] = {"constant": draw.choice([0, False, "x", (1, 2), math.inf, Optimizer.SGD])}
    parents: dict[str, Any] = {}
    for index in range(draw.randint(1, 5)):
        domain, alternatives = _domain(draw)
        if parents and draw.random() < 0.5:
            parent = draw.choice(sorted(parents))
            domain["when"] = {parent: [draw.choice(parents[parent])]}
        name = f"p{index}"
        if alternatives:
            parents[name] = alternatives
        place = draw.random()
        if place < 0.15 and "when" not in domain and not alternatives:
            space["nested"] = {**space.get("nested", {}), name: domain}
        elif place < 0.3 and "when" not in domain and not alternatives:
            space[f"listed{index}"] = [domain, "kept", draw.choice([0, False])]
        else:
            space[name] = domain
    return space


def _domain(draw: random.Random) -> tuple[dict[str, Any], list[Any]]:
    """A domain as a spec has it, and the values of it that conditions may name."""
    low = draw.choice([-3, 0, 1, 10])
    kind = draw.choice(["uniform", "loguniform", "quniform", "randint", "lograndint", "choice", "choice", "grid"])
    if kind == "uniform":
        return {kind: [low, low + draw.choice([1e-9, 0.5, 1e6])]}, []
    if kind == "loguniform":
        return {kind: [10.0 ** draw.randint(-9, -2), 10.0 ** draw.randint(-1, 5)]}, []
    if kind == "quniform":
        q = draw.choice([0.1, 0.25, 3])
        return {kind: [low, low + q * draw.randint(1, 9), q]}, []
    if kind == "randint":
        return {kind: [low, high := low + draw.randint(1, 5)]}, list(range(low, high))
    if kind == "lograndint":
        return {kind: [1, draw.choice([2, 9, 1000])]}, []
    choices = list(draw.choice(_CHOICES))
    return {kind: choices}, choices


def _check(spec: SweepSpec, wider: SweepSpec, draw: random.Random) -> int:
    """Plays a sweep, and checks what it gives; returns how many configurations that were."""
    sign = 1 if spec.mode == "max" else -1
    values: dict[str, float] = {}

    def curve(trial: int, config: Mapping[str, Any], time: int) -> float | None:
        value = values.setdefault(text(dict(config)), draw.random())
        return sign * value * time if draw.random() < 0.97 else None

    played = play(method_for(spec), curve, workers=draw.randint(1, 4), seed=draw.randint(0, 99), faults=0.05)
    given = list(played.given)
    resumed = method_for(wider)
    replay(resumed, played.journal(draw.randint(0, len(played.calls))), spec.metric)
    for _ in range(3):
        answer = resumed.next()
        if not isinstance(answer, NewTrial):
            break
        given.append(answer.config)
    for config in given:
        assert same(spec.space.complete(config), config), f"{text(config)} is none of the space"
    return len(given)
