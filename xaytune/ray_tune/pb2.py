"""PB2: population based bandits (Parker-Holder et al., 2020), whose next configurations Ray Tune's PB2 chooses."""

from __future__ import annotations

import contextlib
import math
import random
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np

from xaytune.errors import Problem, SpecError
from xaytune.ray_tune import compat
from xaytune.search.configurations import hold
from xaytune.search.method import Action, Result
from xaytune.search.schedulers.pbt import PbtScheduler, changed, perturbed
from xaytune.sweep.algorithms import Options, Pb2Spec
from xaytune.sweep.domains import Float
from xaytune.sweep.parameter import Parameter


@dataclass(frozen=True)
class _StandIn:
    """What Ray's PB2 sees of a trial; it never leaves this module."""

    number: int
    config: dict[str, Any]

    def __str__(self) -> str:
        return str(self.number)


class Pb2Scheduler(PbtScheduler):
    """A population as under PBT, but a Gaussian process over all results chooses what a trial continues with."""

    options_model: ClassVar[type[Options]] = Pb2Spec
    options: Pb2Spec  # type: ignore[assignment]

    def setup(self) -> None:
        """Begins without results.

        Raises:
            SpecError: The package scikit-learn is not installed.
            SessionError: The PB2 of the installed Ray is not the one that this was written for.
        """
        super().setup()
        self._fallen_back = False
        self._floats = {
            p.name: p.domain
            for p in self.setting.space.mutated(self.options.hyperparam_mutations)
            if isinstance(p.domain, Float)
        }
        try:
            from xaytune.ray_tune.compat import PB2

            self._ray = PB2(
                time_attr=self.options.time_attr,
                metric=self.objective.metric,
                mode=self.objective.mode,
                hyperparam_bounds={
                    name: [_to_ray(domain, domain.low), _to_ray(domain, domain.high)]
                    for name, domain in self._floats.items()
                },
            )
        except (ImportError, RuntimeError):
            message = "pb2 needs the package scikit-learn: pip install 'xaytune[search]'"
            raise SpecError([Problem(("scheduler", "algorithm"), message)]) from None
        compat.check("PB2")

    def on_result(self, trial: int, result: Result) -> Sequence[Action]:
        """Lets the model know a result, and judges it."""
        assert result.value is not None
        self._learn(trial, result.time, result.value)
        return super().on_result(trial, result)

    def fall_back(self) -> None:
        """Perturbs as PBT does from now on."""
        self._fallen_back = True

    def explore(self, trial: int, donor: int, config: Mapping[str, Any], rng: Random) -> dict[str, Any]:
        """Returns what the model chooses; after a fall-back, a perturbation."""
        chosen = None if self._fallen_back else self._chosen(trial, donor, config, rng)

        def change(parameter: Parameter, value: Any) -> Any:
            if (domain := self._floats.get(parameter.name)) is None:
                return value
            if chosen is None:
                return perturbed(domain, value, rng)
            return _from_ray(domain, chosen[parameter.name])

        return changed(self.setting.space, config, change, rng)

    def _chosen(self, trial: int, donor: int, config: Mapping[str, Any], rng: Random) -> Mapping[str, float]:
        own, other = self._stand_in(trial, self.config_of(trial)), self._stand_in(donor, config)
        known = self._ray.data
        with _drawing_from(rng.getrandbits(32)):
            chosen, _ = self._ray._get_new_config(own, other)  # type: ignore[arg-type]
        # Ray adds that the trial continues with rounded values, from the newest result of the donor: it does not.
        self._ray.data = known
        return chosen

    def _take_over(self, trial: int, donor: int, config: Mapping[str, Any]) -> None:
        super()._take_over(trial, donor, config)
        member = self._members[trial]
        if member.score is not None:
            self._learn(trial, member.time, self.objective.value_of(member.score))

    def _learn(self, trial: int, time: int, value: float) -> None:
        """Lets the model know what a trial is worth: it learns from differences under one configuration."""
        seen = {self.options.time_attr: time, self.objective.metric: value}
        stand_in = self._stand_in(trial, self.config_of(trial))
        self._ray._save_trial_state(SimpleNamespace(), time, seen, stand_in)  # type: ignore[arg-type]

    def _stand_in(self, trial: int, config: Mapping[str, Any]) -> _StandIn:
        values = self.setting.space.values(config)
        return _StandIn(trial, {name: _to_ray(domain, values[name]) for name, domain in self._floats.items()})


# Ray's model is linear: it is given the logarithms of what is searched by its logarithm.
def _to_ray(domain: Float, value: float) -> float:
    return math.log(value) if domain.log else value


def _from_ray(domain: Float, value: float) -> Any:
    return hold(domain, math.exp(value) if domain.log else value)


@contextlib.contextmanager
def _drawing_from(seed: int) -> Iterator[None]:
    """Lets Ray draw from a seed, without its warnings; the process's own generators are put back."""
    before = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sklearn
            yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
