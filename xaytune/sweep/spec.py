"""The spec of a sweep: every option there is, checked where it is made."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    WrapValidator,
)
from pydantic_core import ErrorDetails

from xaytune.errors import Path, Problem, SpecError, nearest
from xaytune.sweep.algorithms import (
    ALGORITHMS,
    FifoSpec,
    Options,
    Pb2Spec,
    PbtSpec,
    RandomSpec,
    SchedulerSpec,
    SearchSpec,
)
from xaytune.sweep.domains import Float
from xaytune.sweep.space import Parameter, Space
from xaytune.sweep.space_parser import parse_space

__all__ = [
    "BudgetSpec",
    "CheckpointSpec",
    "FailuresSpec",
    "Reference",
    "SweepSpec",
    "TrackerName",
    "reference_name",
]


class FailuresSpec(Options):
    """What to do about failures.

    Attributes:
        retries: Times that a trial is begun again, from its last checkpoint, after it lost its process. Lost
            nodes and preemptions do not count; an error of the recipe is not retried.
    """

    retries: int = Field(default=3, ge=0)


def _seconds(value: Any) -> Any:
    """Reads a duration: ``90``, ``"90s"``, ``"15m"``, ``"1h30m"``, ``"2d"``."""
    if not isinstance(value, str):
        return value
    parts = re.findall(r"(\d+(?:\.\d+)?)([dhms])", value.replace(" ", ""))
    if not parts or "".join(map("".join, parts)) != value.replace(" ", ""):
        raise ValueError(f"must be seconds, or a duration like '90s', '15m', '1h30m' (got {value!r})")
    return sum(float(number) * {"d": 86400, "h": 3600, "m": 60, "s": 1}[unit] for number, unit in parts)


class BudgetSpec(Options):
    """When a sweep ends, though trials are left: those that run are stopped through their own loops.

    Attributes:
        time: Seconds that it runs, or a duration like ``"2h"``.
        epochs: Epochs of all trials together.
    """

    time: Annotated[float, BeforeValidator(_seconds), Field(gt=0)] | None = None
    epochs: int | None = Field(default=None, ge=1)


class CheckpointSpec(Options):
    """Which checkpoints of a sweep are kept.

    Attributes:
        num_to_keep: Of the trials that have ended the best so many keep one, that of their best value if they
            have it, else their newest; None keeps all. What other trials go on from is never deleted.
    """

    num_to_keep: int | None = Field(default=None, ge=1)


def _check_reference(value: Any) -> Any:
    if not callable(value) and not (isinstance(value, str) and re.fullmatch(r"[\w.]+:[\w.]+", value)):
        raise ValueError(f"must be 'module:function', or a function (got {value!r})")
    return value


_Bundle = dict[str, Annotated[float, Field(ge=0)]]
_Resources = Annotated[
    Annotated[_Bundle, Tag("bundle")] | Annotated[list[_Bundle], Field(min_length=1), Tag("bundles")],
    Discriminator(lambda value: "bundles" if isinstance(value, list) else "bundle"),
]
TrackerName = Literal["tensorboard", "mlflow", "wandb"]
Reference = Annotated[str | Callable[..., Any], WrapValidator(lambda value, _: _check_reference(value))]


class SweepSpec(Options):
    """A sweep: what is trained, over which space, how it is searched, and which trials are stopped early.

    Attributes:
        recipe: ``"module:function"``, or the function: takes ``(config, trial)``, returns a TrainState.
        metric: Name of the metric to optimise.
        mode: Whether a ``"max"`` or a ``"min"`` is better.
        space: The search space.
        search: Which configuration comes next.
        scheduler: Which trials are stopped early.
        num_samples: Configurations to draw; a ``grid`` multiplies them.
        max_concurrent_trials: Trials that run at once; by default as many as the cluster has room for.
        resources_per_trial: What each trial reserves, ``cpu``, ``gpu`` and custom resources; or several such
            bundles, the first for its own process, the others for what it starts.
        placement_strategy: How Ray places the bundles of a trial on nodes.
        callbacks: ``"module:function"`` or functions; each is called once a trial with ``(trial, config)``.
        trackers: Experiment trackers in which each trial is a run.
        requirements: Packages, as pip takes them, that a cluster installs for the sweep when it is launched there.
        failures: What to do about failures.
        budget: When the sweep ends, though trials are left.
        checkpoint_config: Which checkpoints are kept.
        stop_grace_s: Seconds that a trial has to end by itself after it was told to stop.
        stall_timeout_s: Seconds without a step after which a trial's process is ended; None waits for ever.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    recipe: Reference
    metric: str = Field(min_length=1)
    mode: Literal["max", "min"]
    space: Space
    search: SearchSpec = RandomSpec()
    scheduler: SchedulerSpec = FifoSpec()
    num_samples: int = Field(default=1, ge=1)
    max_concurrent_trials: int | None = Field(default=None, ge=1)
    resources_per_trial: _Resources = Field(default_factory=lambda: {"cpu": 1.0})
    placement_strategy: Literal["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"] = "PACK"
    callbacks: list[Reference] = Field(default_factory=list)
    trackers: list[TrackerName] = Field(default_factory=list)
    requirements: list[str] = Field(default_factory=list)
    failures: FailuresSpec = FailuresSpec()
    budget: BudgetSpec = BudgetSpec()
    checkpoint_config: CheckpointSpec = CheckpointSpec()
    stop_grace_s: float = Field(default=60, gt=0)
    stall_timeout_s: float | None = Field(default=None, gt=0)

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> SweepSpec:
        """Builds a spec from plain data.

        Raises:
            SpecError: With everything that is wrong.
        """
        if not isinstance(raw, Mapping):
            raise SpecError([Problem((), f"a spec must map options to values (got {raw!r})")])
        problems: list[Problem] = []
        values: dict[str, Any] = {str(key): value for key, value in raw.items()}
        if "space" in values:
            try:
                values["space"] = parse_space(values["space"])
            except SpecError as error:
                problems += [problem.below("space") for problem in error.problems]
                values["space"] = Space({}, (), {})
        try:
            spec = cls.model_validate(values)
        except ValidationError as error:
            problems += [_problem(details) for details in error.errors()]
        else:
            problems += _contradictions(spec)
        if problems:
            raise SpecError(problems)
        return spec

    @property
    def bundles(self) -> list[dict[str, float]]:
        """What each trial reserves, as a list."""
        reserved = self.resources_per_trial
        return reserved if isinstance(reserved, list) else [reserved]

    @property
    def gridded(self) -> tuple[Parameter, ...]:
        """The parameters whose values are tried each in turn."""
        everything = self.search.algorithm == "grid"
        return tuple(p for p in self.space.parameters if everything or p.domain.gridded)

    @property
    def mutated(self) -> tuple[Parameter, ...]:
        """The parameters that a population's scheduler perturbs."""
        named = getattr(self.scheduler, "hyperparam_mutations", None)
        return tuple(p for p in self.space.parameters if (p.name in named if named is not None else not p.when))

    def grid_points(self) -> list[dict[str, Any]]:
        """Every combination of the gridded parameters, by name; one empty combination if there are none."""
        return list(self.space.grid(self.gridded))

    @property
    def num_trials(self) -> int:
        """Trials of the whole sweep."""
        return self.num_samples * self.space.count(self.gridded)

    def plain(self) -> dict[str, Any]:
        """Returns the spec as data that JSON can hold; functions become references."""
        data = self.model_dump(exclude={"space", "recipe", "callbacks"})
        recipe, callbacks = reference_name(self.recipe), [reference_name(c) for c in self.callbacks]
        return {"recipe": recipe, "space": self.space.raw, "callbacks": callbacks, **data}


def reference_name(reference: Reference) -> str:
    """Returns ``module:function`` for a function or a reference to one."""
    if isinstance(reference, str):
        return reference
    return f"{reference.__module__}:{getattr(reference, '__qualname__', type(reference).__name__)}"


def _contradictions(spec: SweepSpec) -> Iterator[Problem]:
    for index, bundle in enumerate(spec.bundles):
        at: Path = (index,) if isinstance(spec.resources_per_trial, list) else ()
        path = ("resources_per_trial", *at)
        if not any(bundle.values()):
            yield Problem(path, f"must reserve something (got {bundle})")
        gpus = bundle.get("gpu", 0)
        if gpus > 1 and gpus != int(gpus):
            yield Problem((*path, "gpu"), f"must be whole above 1: Ray splits no second GPU (got {gpus:g})")
    if isinstance(spec.scheduler, (PbtSpec, Pb2Spec)):
        yield from _population_problems(spec, spec.scheduler)
    if spec.search.algorithm == "grid":
        for parameter in spec.space.parameters:
            if parameter.domain.values() is None:
                path = ("space", *parameter.name.split("."))
                yield Problem(path, "grid search needs values that can be counted; give quniform, choice or grid")


def _population_problems(spec: SweepSpec, scheduler: PbtSpec | Pb2Spec) -> Iterator[Problem]:
    path = ("scheduler", "hyperparam_mutations")
    parameters = {parameter.name: parameter for parameter in spec.space.parameters}
    for name in scheduler.hyperparam_mutations or ():
        if name not in parameters:
            yield Problem(path, f"the space has no parameter {name!r}; {nearest(name, parameters)}")
        elif parameters[name].when:
            yield Problem(path, f"{name!r} does not always exist: it cannot be perturbed")
    for parameter in spec.mutated:
        if isinstance(scheduler, Pb2Spec) and (not isinstance(parameter.domain, Float) or parameter.domain.q):
            yield Problem(path, f"pb2 perturbs floats only, {parameter.name!r} is none: name those that are")


def _problem(details: ErrorDetails) -> Problem:
    """Words a problem that pydantic found: what was got, and the mend."""
    kind, got, context = details["type"], details["input"], details.get("ctx", {})
    # Pydantic puts the chosen member of a union into the path, where the file has no such key.
    path = tuple(
        part for part in details["loc"] if part not in (*ALGORITHMS, "built-in", "extension", "bundle", "bundles")
    )
    if kind == "extra_forbidden":
        *model, key = details["loc"]
        return Problem(path, f"unknown option {key!r}; {nearest(key, _options_at(tuple(model)))}")
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return Problem(path, f"must be a mapping of options (got {got!r})")
    if kind == "missing":
        return Problem(path, "is required")
    if kind == "union_tag_invalid":
        known = context["expected_tags"].replace("'", "").split(", ")
        return Problem(
            (*path, "algorithm"), f"unknown algorithm {context['tag']!r}; {nearest(context['tag'], known)}"
        )
    if kind == "union_tag_not_found":
        return Problem(path, "needs an 'algorithm'")
    message = details["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    return Problem(path, message if kind == "value_error" else f"{message} (got {got!r})")


def _options_at(location: Path) -> list[str]:
    """The options there are at pydantic's location of a model: ``()``, ``("budget",)``, ``("search", "tpe")``."""
    if not location:
        return list(SweepSpec.model_fields)
    model = (
        SweepSpec.model_fields[str(location[0])].annotation
        if len(location) == 1
        else ALGORITHMS[str(location[-1])]
    )
    return list(model.model_fields)  # type: ignore[union-attr]


# Which member of a union was chosen, as pydantic's locations tell it.
_TAGS = {*ALGORITHMS, "built-in", "extension", "bundle", "bundles"}
