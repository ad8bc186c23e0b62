"""The options of every search and scheduler there is; their names and meanings are Ray Tune's and Optuna's.

A name alone, ``scheduler: asha``, is an algorithm with its default options. A class of one's own is named by
reference, ``{algorithm: my_package.module:MyScheduler, keep: 3}``, or given as an object, ``MyScheduler(keep=3)``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    field_serializer,
    model_validator,
)

from xaytune.sweep.time_axis import TimeAttr
from xaytune.sweep.values import is_name, name_of


class Options(BaseModel):
    """Options of a spec: no others are taken, and none is converted."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class _Search(Options):
    """What every search has.

    Attributes:
        seed: What the random numbers of the search and of the trials are derived from.
    """

    seed: int = Field(default=0, ge=0, lt=2**32)


class RandomSpec(_Search):
    """Independent draws: the default, and hard to beat under ASHA."""

    algorithm: Literal["random"] = "random"


class GridSpec(_Search):
    """Every combination of the values of a space that can be counted."""

    algorithm: Literal["grid"] = "grid"


class QmcSpec(_Search):
    """A scrambled Sobol sequence: draws that cover the space more evenly than random ones."""

    algorithm: Literal["qmc"] = "qmc"


class TpeSpec(_Search):
    """Tree-structured Parzen estimator (Bergstra et al., 2011).

    Attributes:
        n_startup_trials: Trials that are drawn at random first.
        multivariate: Whether parameters are modelled together; by default where no scheduler stops trials early.
    """

    algorithm: Literal["tpe"] = "tpe"
    n_startup_trials: int = Field(default=10, ge=0)
    multivariate: bool | None = None


class GpSpec(_Search):
    """Bayesian optimisation with a Gaussian process.

    Attributes:
        n_startup_trials: Trials that are drawn at random first.
    """

    algorithm: Literal["gp"] = "gp"
    n_startup_trials: int = Field(default=10, ge=0)


class CmaesSpec(_Search):
    """Covariance matrix adaptation evolution strategy (Hansen, 2016); choices are drawn independently.

    Attributes:
        n_startup_trials: Trials that are drawn at random first.
    """

    algorithm: Literal["cmaes"] = "cmaes"
    n_startup_trials: int = Field(default=1, ge=0)


class OpenOptions(Options):
    """Options of what is named by reference: others are taken, which its own model checks."""

    model_config = ConfigDict(extra="allow", arbitrary_types_allowed=True)

    @property
    def options(self) -> dict[str, Any]:
        """The options that its own model checks."""
        return dict(self.model_extra or {})


class ExtensionSpec(OpenOptions):
    """A sampler, scheduler or search method by reference.

    Attributes:
        algorithm: ``"package.module:Class"``, or the class.
    """

    algorithm: str | type

    @field_serializer("algorithm")
    def _reference(self, algorithm: str | type) -> str:
        return name_of(algorithm)


class SearchExtensionSpec(ExtensionSpec):
    """An extension that stands in ``search``, with the seed of the sweep."""

    seed: int = Field(default=0, ge=0, lt=2**32)


# Where the classes are of the algorithms that have a name; a user's own are named by such references.
CLASSES = {
    "random": "xaytune.search.samplers.plain:RandomSampler",
    "grid": "xaytune.search.samplers.plain:GridSampler",
    "qmc": "xaytune.search.samplers.model_based:QmcSampler",
    "tpe": "xaytune.search.samplers.model_based:TpeSampler",
    "gp": "xaytune.search.samplers.model_based:GpSampler",
    "cmaes": "xaytune.search.samplers.model_based:CmaesSampler",
    "fifo": "xaytune.search.schedulers.fifo:FifoScheduler",
    "asha": "xaytune.search.schedulers.asha:AshaScheduler",
    "median": "xaytune.search.schedulers.median:MedianScheduler",
    "hyperband": "xaytune.search.schedulers.hyperband:HyperbandScheduler",
    "pbt": "xaytune.search.schedulers.pbt:PbtScheduler",
    "pb2": "xaytune.ray_tune.pb2:Pb2Scheduler",
    "curves": "xaytune.search.curves.method:CurvesMethod",
}
_NAMES = {reference: name for name, reference in CLASSES.items()}


def _options_of(value: Any) -> Any:
    """Reads a name alone, a class, or an object of one, as a mapping of options; a built-in class by its name."""
    options = getattr(value, "options", None)
    if isinstance(value, (str, type)):
        value = {"algorithm": value}
    elif isinstance(options, Options) and not isinstance(value, Options):
        value = {"algorithm": type(value), **options.model_dump(exclude={"algorithm"}, exclude_unset=True)}
    if isinstance(value, Mapping) and isinstance(algorithm := value.get("algorithm"), (str, type)):
        return {**value, "algorithm": _NAMES.get(name_of(algorithm), algorithm)}
    return value


def _kind(value: Any) -> Literal["built-in", "extension"]:
    """Tells whether a mapping of options is of what has a name, or of a class of one's own."""
    algorithm = value.get("algorithm") if isinstance(value, Mapping) else getattr(value, "algorithm", None)
    return "extension" if isinstance(algorithm, type) or is_name(algorithm) else "built-in"


def _search_options_of(value: Any) -> Any:
    """The same of a search: a seed alone is that of random draws, or of a scheduler that draws itself."""
    options = _options_of(value)
    return {"algorithm": "random", **options} if isinstance(options, Mapping) else options


_BuiltInSearch = RandomSpec | GridSpec | QmcSpec | TpeSpec | GpSpec | CmaesSpec
SearchSpec = Annotated[
    Annotated[_BuiltInSearch, Field(discriminator="algorithm"), Tag("built-in")]
    | Annotated[SearchExtensionSpec, Tag("extension")],
    Discriminator(_kind),
    BeforeValidator(_search_options_of),
]


class FifoSpec(Options):
    """Every trial trains to its end."""

    algorithm: Literal["fifo"] = "fifo"


class _Timed(Options):
    """What schedulers have that judge trials at some times.

    Attributes:
        time_attr: What time is counted in.
    """

    time_attr: TimeAttr = "epoch"


class _EarlyStopping(_Timed):
    """What schedulers have that stop trials early.

    Attributes:
        grace_period: The first time at which a trial is judged.
    """

    grace_period: int = Field(default=1, ge=1)


def _judged_by_max_t(options: Any) -> Any:
    """Checks that a trial is judged before it has trained in full."""
    first, last = options.grace_period, options.max_t
    if first is not None and last is not None and first > last:
        raise ValueError(f"grace_period must be at most max_t (got grace_period {first}, max_t {last})")
    return options


class AshaSpec(_EarlyStopping):
    """Asynchronous successive halving (Li et al., 2020): at each rung the best 1/`reduction_factor` continue.

    Attributes:
        max_t: Time at which a trial has trained in full.
        reduction_factor: Each rung is this many times later than the one before, and about one trial in this many
            continues there.
    """

    algorithm: Literal["asha"] = "asha"
    max_t: int = Field(default=100, ge=1)
    reduction_factor: float = Field(default=4, gt=1)

    @property
    def rungs(self) -> tuple[int, ...]:
        """The times at which trials are judged: ``grace_period * reduction_factor**k``, and `max_t` last."""
        powers = (self.grace_period * self.reduction_factor**k for k in itertools.count())
        rungs = {math.ceil(power) for power in itertools.takewhile(lambda power: power <= self.max_t, powers)}
        return tuple(sorted(rungs | {self.max_t}))

    _checked = model_validator(mode="after")(_judged_by_max_t)


class MedianSpec(_EarlyStopping):
    """Median stopping (Golovin et al., 2017): stops trials that are worse than the median of the others.

    Attributes:
        min_samples_required: How many other trials must have come as far before a trial is compared with them.
    """

    algorithm: Literal["median"] = "median"
    min_samples_required: int = Field(default=3, ge=1)


class HyperbandSpec(_Timed):
    """HyperBand (Li et al., 2018): trials of a bracket wait for each other, and the best continue together.

    Attributes:
        max_t: Time at which a trial has trained in full.
        reduction_factor: One trial in this many continues, for this many times as long.
    """

    algorithm: Literal["hyperband"] = "hyperband"
    max_t: int = Field(default=81, ge=1)
    reduction_factor: int = Field(default=3, ge=2)


class PopulationSpec(_Timed):
    """What schedulers of a population have.

    Attributes:
        perturbation_interval: Epochs or steps between two perturbations of a trial.
        quantile_fraction: The share of the population that counts as the best, and as the worst.
        synch: Whether all trials wait for each other at each interval. If not, a trial is paused only where
            another waits for its place; either way trials are compared at the same age.
        hyperparam_mutations: Names of the parameters that are perturbed; by default all that always exist.
        burn_in_period: Epochs or steps before the first perturbation.
    """

    perturbation_interval: int = Field(default=5, ge=1)
    quantile_fraction: float = Field(default=0.25, gt=0, le=0.5)
    synch: bool = False
    burn_in_period: int = Field(default=0, ge=0)
    hyperparam_mutations: list[str] | None = Field(default=None, min_length=1)


class PbtSpec(PopulationSpec):
    """Population based training (Jaderberg et al., 2017): the worst take over and perturb what the best are.

    Attributes:
        resample_probability: How often a parameter is drawn from its domain again, instead of perturbed.
    """

    algorithm: Literal["pbt"] = "pbt"
    resample_probability: float = Field(default=0.25, ge=0, le=1)


class Pb2Spec(PopulationSpec):
    """Population based bandits (Parker-Holder et al., 2020): PBT whose perturbations a Gaussian process draws."""

    algorithm: Literal["pb2"] = "pb2"


class CurvesSpec(_Timed):
    """A Gaussian process over configurations and time: it says what to try next, and which trial to stop.

    Attributes:
        grace_period: The first time at which a trial is judged; by default a twentieth of `max_t`, rounded up.
        max_t: Time at which a trial has trained in full; by default what the first trial says when it starts:
            its `num_epochs`, or `max_steps`.
    """

    algorithm: Literal["curves"] = "curves"
    grace_period: int | None = Field(default=None, ge=1)
    max_t: int | None = Field(default=None, ge=1)

    _checked = model_validator(mode="after")(_judged_by_max_t)


_BuiltInScheduler = FifoSpec | AshaSpec | MedianSpec | HyperbandSpec | PbtSpec | Pb2Spec | CurvesSpec
SchedulerSpec = Annotated[
    Annotated[_BuiltInScheduler, Field(discriminator="algorithm"), Tag("built-in")]
    | Annotated[ExtensionSpec, Tag("extension")],
    Discriminator(_kind),
    BeforeValidator(_options_of),
]

# The options of each algorithm that has a name.
ALGORITHMS: dict[str, type[Options]] = {
    str(model.model_fields["algorithm"].default): model
    for model in (*get_args(_BuiltInSearch), *get_args(_BuiltInScheduler))
}
