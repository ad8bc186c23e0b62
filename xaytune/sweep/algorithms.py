"""The options of every search and scheduler there is; their names and meanings are Ray Tune's and Optuna's."""

from __future__ import annotations

import itertools
import math
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = [
    "AshaSpec",
    "CmaesSpec",
    "FifoSpec",
    "GpSpec",
    "GridSpec",
    "HyperbandSpec",
    "MedianSpec",
    "Options",
    "Pb2Spec",
    "PbtSpec",
    "QmcSpec",
    "RandomSpec",
    "SchedulerSpec",
    "SearchSpec",
    "TpeSpec",
]


class Options(BaseModel):
    """Options of a spec: no others are taken, and none is converted."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class _Search(Options):
    seed: int = Field(default=0, ge=0, lt=2**32)


class RandomSpec(_Search):
    """Independent draws: the default, and hard to beat under ASHA."""

    algorithm: Literal["random"] = "random"


class GridSpec(_Search):
    """Every combination of the values of a space that can be counted."""

    algorithm: Literal["grid"]


class QmcSpec(_Search):
    """A scrambled Sobol sequence: draws that cover the space more evenly than random ones."""

    algorithm: Literal["qmc"]


class TpeSpec(_Search):
    """Tree-structured Parzen estimator (Bergstra et al., 2011)."""

    algorithm: Literal["tpe"]
    n_startup_trials: int = Field(default=10, ge=0)
    multivariate: bool = False


class GpSpec(_Search):
    """Bayesian optimisation with a Gaussian process."""

    algorithm: Literal["gp"]
    n_startup_trials: int = Field(default=10, ge=0)


class CmaesSpec(_Search):
    """Covariance matrix adaptation evolution strategy (Hansen, 2016); choices are drawn independently."""

    algorithm: Literal["cmaes"]
    n_startup_trials: int = Field(default=1, ge=0)


SearchSpec = Annotated[
    RandomSpec | GridSpec | QmcSpec | TpeSpec | GpSpec | CmaesSpec, Field(discriminator="algorithm")
]


class FifoSpec(Options):
    """Every trial trains to its end."""

    algorithm: Literal["fifo"] = "fifo"


class _EarlyStopping(Options):
    time_attr: Literal["epoch", "global_step"] = "epoch"
    grace_period: int = Field(default=1, ge=1)


class AshaSpec(_EarlyStopping):
    """Asynchronous successive halving (Li et al., 2020): at each rung the best 1/`reduction_factor` go on."""

    algorithm: Literal["asha"]
    max_t: int = Field(default=100, ge=1)
    reduction_factor: float = Field(default=4, gt=1)

    @property
    def rungs(self) -> tuple[int, ...]:
        """The times at which trials are judged: ``grace_period * reduction_factor**k``, and `max_t` last."""
        powers = (self.grace_period * self.reduction_factor**k for k in itertools.count())
        rungs = {math.ceil(power) for power in itertools.takewhile(lambda power: power <= self.max_t, powers)}
        return tuple(sorted(rungs | {self.max_t}))

    @model_validator(mode="after")
    def _first_rung_is_reached(self) -> AshaSpec:
        if self.grace_period > self.max_t:
            raise ValueError(
                f"grace_period must be at most max_t (got grace_period {self.grace_period}, max_t {self.max_t})"
            )
        return self


class MedianSpec(_EarlyStopping):
    """Median stopping (Golovin et al., 2017): stops what is worse than the median of the other trials."""

    algorithm: Literal["median"]
    min_samples_required: int = Field(default=3, ge=1)


class HyperbandSpec(Options):
    """HyperBand (Li et al., 2018): trials of a bracket wait for each other, and the best go on together."""

    algorithm: Literal["hyperband"]
    time_attr: Literal["epoch", "global_step"] = "epoch"
    max_t: int = Field(default=81, ge=1)
    reduction_factor: int = Field(default=3, ge=2)


class _Population(Options):
    time_attr: Literal["epoch", "global_step"] = "epoch"
    perturbation_interval: int = Field(default=5, ge=1)
    quantile_fraction: float = Field(default=0.25, gt=0, le=0.5)
    hyperparam_mutations: list[str] | None = Field(default=None, min_length=1)


class PbtSpec(_Population):
    """Population based training (Jaderberg et al., 2017): the worst take over and perturb what the best are.

    Attributes:
        perturbation_interval: Epochs or steps between two perturbations of a trial.
        quantile_fraction: Share of the population that is best, and that is worst.
        hyperparam_mutations: Names of the parameters that are perturbed; by default all that always exist.
        resample_probability: How often a parameter is drawn anew instead.
        burn_in_period: Epochs or steps before the first perturbation.
    """

    algorithm: Literal["pbt"]
    resample_probability: float = Field(default=0.25, ge=0, le=1)
    burn_in_period: int = Field(default=0, ge=0)


class Pb2Spec(_Population):
    """Population based bandits (Parker-Holder et al., 2020): PBT whose perturbations a Gaussian process draws."""

    algorithm: Literal["pb2"]


SchedulerSpec = Annotated[
    FifoSpec | AshaSpec | MedianSpec | HyperbandSpec | PbtSpec | Pb2Spec, Field(discriminator="algorithm")
]
