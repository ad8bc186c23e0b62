"""The spec of a sweep: its options, checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from xaytune.errors import Problem, ProblemPath, SpecError
from xaytune.sweep import values
from xaytune.sweep.algorithms import FifoSpec, Options, RandomSpec, SchedulerSpec, SearchSpec
from xaytune.sweep.command import Command
from xaytune.sweep.objective import Objective
from xaytune.sweep.options import (
    BudgetSpec,
    CheckpointSpec,
    FailuresSpec,
    Reference,
    Resources,
    TrackerSpec,
    reference_name,
    spelt_out,
)
from xaytune.sweep.parameter import Parameter
from xaytune.sweep.references import functions_of
from xaytune.sweep.space import Space
from xaytune.sweep.space_parser import parse_space
from xaytune.sweep.spec_problems import contradictions, worded
from xaytune.sweep.time_axis import TimeAxis

_REFERENCES = ("recipe", "setup", "callbacks")


class SweepSpec(Options):
    """A sweep: what is trained, over which space, how it is searched, and which trials are stopped early.

    Attributes:
        recipe: ``"module:function"``, or the function: it takes ``(config, trial)``, and trains one configuration.
        command: Instead of a recipe, what starts a program, with the names of parameters in braces.
        setup: ``"module:function"``, or the function: it takes nothing, and is called once on each node before its
            trials; what it returns is their ``trial.shared``.
        metric: Name of the metric to optimise.
        mode: Whether a ``"max"`` or a ``"min"`` is better.
        space: The search space.
        points_to_evaluate: Configurations that are tried first, exactly as given; each has all parameters.
        warm_start: Earlier sweeps, by name, folder or URI, whose best configurations are tried first.
        search: Which configuration comes next.
        scheduler: Which trials are stopped early.
        num_samples: Configurations to draw; a ``grid`` multiplies them. With -1 they are drawn until the budget is
            spent.
        max_concurrent_trials: Trials that run at once; by default as many as the cluster has capacity for.
        resources_per_trial: What each trial reserves: ``cpu``, ``gpu`` and custom resources; or several such
            bundles, the first for its own process, the others for what it starts.
        placement_strategy: How Ray places the bundles of a trial on nodes.
        callbacks: ``"module:function"`` or functions; each is called with ``(trial, config)`` before the recipe.
        trackers: Experiment trackers in which each trial is a run.
        requirements: Packages, as pip takes them, that are installed for a sweep that is launched on a cluster.
        failures: What to do about failures.
        budget: When the sweep ends, though trials are left.
        checkpoint_config: Which checkpoints are kept.
        tracker_timeout_s: Seconds to wait for each call of a tracker; after that the trial continues without it.
        fused: How many trials one process trains at once, by one program where their models have the same shape;
            ``auto`` finds out, and 1 gives each trial a process of its own.
        stop_grace_s: Seconds that a trial has to end by itself after it was asked to stop; then its process is
            killed.
        stall_timeout_s: Seconds without a step after which a trial's process is killed; by default it never is.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    recipe: Reference | None = None
    command: Annotated[Command, BeforeValidator(Command.parse)] | None = None
    setup: Reference | None = None
    metric: str = Field(min_length=1)
    mode: Literal["max", "min"]
    space: Space
    points_to_evaluate: list[dict[str, Any]] = Field(default_factory=list)
    warm_start: list[str] = Field(default_factory=list)
    search: SearchSpec = RandomSpec()
    scheduler: SchedulerSpec = FifoSpec()
    num_samples: int = 1
    max_concurrent_trials: int | None = Field(default=None, ge=1)
    resources_per_trial: Resources = Field(default_factory=lambda: {"cpu": 1.0})
    placement_strategy: Literal["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"] = "PACK"
    callbacks: list[Reference] = Field(default_factory=list)
    trackers: list[TrackerSpec] = Field(default_factory=list)
    tracker_timeout_s: float = Field(default=30, gt=0)
    requirements: list[str] = Field(default_factory=list)
    failures: FailuresSpec = FailuresSpec()
    budget: BudgetSpec = BudgetSpec()
    checkpoint_config: CheckpointSpec = CheckpointSpec()
    fused: int | Literal["auto"] = 1
    stop_grace_s: float = Field(default=60, gt=0)
    stall_timeout_s: float | None = Field(default=None, gt=0)

    @field_validator("fused", mode="before")
    @classmethod
    def _positive_or_auto(cls, value: Any) -> Any:
        if value != "auto" and (type(value) is not int or value < 1):
            raise ValueError(f"must be a whole number of at least 1, or auto (got {value!r})")
        return value

    @field_validator("num_samples")
    @classmethod
    def _positive_or_unlimited(cls, value: int) -> int:
        if value < 1 and value != -1:
            raise ValueError(f"must be at least 1, or -1 to draw until the budget is spent (got {value})")
        return value

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> SweepSpec:
        """Builds a spec from plain data; see :func:`xaytune.sweep.options.spelt_out` for its short forms.

        Raises:
            SpecError: With everything that is wrong.
        """
        if not isinstance(raw, Mapping):
            raise SpecError([Problem((), f"a spec must map options to values (got {raw!r})")])
        problems: list[Problem] = []
        options = spelt_out(raw)
        if ("recipe" in options) == ("command" in options):
            how = "have both: give one" if "recipe" in options else "is required, or a command"
            problems.append(Problem(("recipe",), how))
        if "space" in options:
            try:
                options["space"] = parse_space(options["space"])
            except SpecError as error:
                problems += [problem.below("space") for problem in error.problems]
                options["space"] = Space({}, (), {})
            else:
                options["points_to_evaluate"] = _complete(
                    options["space"], options.get("points_to_evaluate", []), problems
                )
        try:
            spec = cls.model_validate(options)
        except ValidationError as error:
            problems += [worded(details, cls) for details in error.errors()]
        else:
            problems += contradictions(spec)
        if problems:
            raise SpecError(problems)
        return spec

    @property
    def trains(self) -> Reference | Command:
        """What trains a configuration: the recipe, or the command."""
        trains = self.command or self.recipe
        assert trains is not None
        return trains

    @property
    def functions(self) -> dict[ProblemPath, Reference]:
        """The recipe, the callbacks and the setup, by where the spec names them."""
        return functions_of(self.recipe, self.callbacks, self.setup)

    @property
    def fuses(self) -> bool:
        """Whether a process trains several trials at once."""
        return self.fused != 1

    @property
    def without_scheduler(self) -> str | None:
        """A message that says what it costs that the spec names no scheduler; None where it does."""
        if "scheduler" in self.model_fields_set or self.num_trials == 1:
            return None
        count = "all trials" if self.num_trials is None else f"all {self.num_trials} trials"
        return f"{count} train to their end, weak ones too: scheduler: curves would stop those early"

    @property
    def objective(self) -> Objective:
        """What the sweep optimises."""
        return Objective(self.metric, self.mode)

    @property
    def axis(self) -> TimeAxis:
        """What the scheduler counts the age of trials in."""
        return TimeAxis(getattr(self.scheduler, "time_attr", "epoch"))

    @property
    def max_t(self) -> int | None:
        """How long a trial trains at most, where the scheduler says so."""
        return getattr(self.scheduler, "max_t", None)

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
    def num_trials(self) -> int | None:
        """Trials of the whole sweep; None: as many as the budget lets."""
        return None if self.num_samples == -1 else self.num_samples * self.space.grid(self.gridded).size

    def plain(self) -> dict[str, Any]:
        """Returns the spec as data that JSON can hold; functions become references."""
        data = self.model_dump(exclude={"space", "points_to_evaluate", "command", *_REFERENCES})
        written = {
            "recipe": reference_name(self.recipe) if self.recipe is not None else None,
            "command": str(self.command) if self.command is not None else None,
            "setup": reference_name(self.setup) if self.setup is not None else None,
            "callbacks": [reference_name(callback) for callback in self.callbacks],
        }
        held = {**data, "space": self.space.raw, "points_to_evaluate": self.points_to_evaluate}
        return {**written, **{name: values.write(value) for name, value in held.items()}}


def _complete(space: Space, points: Any, problems: list[Problem]) -> Any:
    """The points to evaluate as the space would build them; adds what is wrong with them to the problems."""
    if not isinstance(points, (list, tuple)) or not all(isinstance(point, Mapping) for point in points):
        problems.append(
            Problem(
                ("points_to_evaluate",),
                f"must be a list of configurations, such as [{{lr: 0.1}}] (got {points!r})",
            )
        )
        return []
    complete = []
    for index, point in enumerate(points):
        try:
            complete.append(space.complete(values.read(dict(point))))
        except SpecError as error:
            problems += [problem.below("points_to_evaluate", index) for problem in error.problems]
        except ValueError as error:
            problems.append(Problem(("points_to_evaluate", index), str(error)))
    return complete
