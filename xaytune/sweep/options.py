"""The smaller options of a spec, and the forms in which they may be written."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    WrapValidator,
    model_serializer,
    model_validator,
)

from xaytune.errors import Problem, SpecError, nearest
from xaytune.sweep.algorithms import OpenOptions, Options
from xaytune.sweep.command import Command
from xaytune.sweep.values import is_name, name_of, read


class FailuresSpec(Options):
    """What to do about failures.

    Attributes:
        retries: How often a trial is restarted from its last checkpoint after its process was lost. Lost nodes and
            preemptions do not count; an error of the recipe is not retried.
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
        time: Seconds that the sweep runs, or a duration such as ``"2h"``.
        epochs: Epochs of all trials together, as they report them: every two seconds, and where they are judged.
    """

    time: Annotated[float, BeforeValidator(_seconds), Field(gt=0)] | None = None
    epochs: int | None = Field(default=None, ge=1)

    @property
    def limited(self) -> bool:
        """Whether the budget ever ends a sweep."""
        return self.time is not None or self.epochs is not None


class CheckpointSpec(Options):
    """Which checkpoints of a sweep are kept.

    Attributes:
        num_to_keep: How many of the trials that have ended, the best ones, keep a checkpoint: that of their best
            value if there is one, else their newest. By default all trials that have ended keep theirs. A trial
            that failed keeps its newest, to be resumed from. What other trials resume from is never deleted.
    """

    num_to_keep: int | None = Field(default=None, ge=1)


def _check_reference(value: Any) -> Any:
    if callable(value) or is_name(value):
        return value
    hint = ""
    if isinstance(value, str) and (match := re.fullmatch(r"(?:\./)?([\w/]+)\.py(?::(\w+))?", value)):
        hint = f": write {match[1].replace('/', '.')}:{match[2] or 'train'}"
    raise ValueError(f"must be 'module:function', or a function (got {value!r}){hint}")


def _check_resource(name: str) -> str:
    meant = name.lower().removeprefix("num_").removesuffix("s")
    if meant in ("cpu", "gpu") and name != meant:
        raise ValueError(f"did you mean {meant!r}? (got {name!r})")
    return name


_Bundle = dict[Annotated[str, AfterValidator(_check_resource)], Annotated[float, Field(ge=0, allow_inf_nan=False)]]
Resources = Annotated[
    Annotated[_Bundle, Tag("bundle")] | Annotated[list[_Bundle], Field(min_length=1), Tag("bundles")],
    Discriminator(lambda value: "bundles" if isinstance(value, list) else "bundle"),
]
Reference = Annotated[str | Callable[..., Any], WrapValidator(lambda value, _: _check_reference(value))]


# Where the classes are of the trackers that have a name, each of which is an extra; a user's own are named by such
# references.
TRACKERS = {
    "tensorboard": "xaytune.trial.trackers.tensorboard:TensorBoard",
    "mlflow": "xaytune.trial.trackers.mlflow:Mlflow",
    "wandb": "xaytune.trial.trackers.wandb:Wandb",
}


class TrackerSpec(OpenOptions):
    """An experiment tracker in which each trial is a run: a name, a class by reference, or an object of one.

    Attributes:
        tracker: One of :data:`TRACKERS`, ``"package.module:Class"``, or the class.
    """

    tracker: Any

    @property
    def name(self) -> str:
        """What it is called in messages."""
        return reference_name(self.tracker)

    @model_validator(mode="before")
    @classmethod
    def _spelt_out(cls, value: Any) -> Any:
        """Reads a name, a class, or an object of one, as a mapping of options."""
        options = getattr(value, "options", None)
        if isinstance(options, Options) and not isinstance(value, Options):
            return {"tracker": type(value), **options.model_dump(exclude_unset=True)}
        return value if isinstance(value, (Mapping, TrackerSpec)) else {"tracker": value}

    @model_validator(mode="after")
    def _names_a_tracker(self) -> TrackerSpec:
        named = self.tracker
        if callable(named) or named in TRACKERS or is_name(named):
            return self
        hint = nearest(named, TRACKERS) if isinstance(named, str) else "give its class"
        raise ValueError(f"must be {', '.join(TRACKERS)}, or 'module:Class' (got {named!r}); {hint}")

    @model_serializer
    def _plain(self) -> Any:
        return {"tracker": self.name, **self.options} if self.options else self.name


def reference_name(reference: Reference | Command) -> str:
    """Returns ``module:function`` for a function or a reference to one, and a command as it is written."""
    return str(reference) if isinstance(reference, Command) else name_of(reference)


def spelt_out(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options of a spec in their full forms, where they were written in short.

    ``scheduler: asha`` is ``{algorithm: asha}``, ``budget: 2h`` is ``{time: 2h}``, ``failures: 3`` is
    ``{retries: 3}``, a callback or tracker alone is a list of it; null is what is left out.

    Raises:
        SpecError: A value is written in a form that cannot be read.
    """
    options = {str(name): value for name, value in raw.items() if value is not None}
    for name in options.keys() - {"space", "points_to_evaluate"}:  # those are read where they are parsed
        try:
            options[name] = read(options[name])
        except ValueError as error:
            raise SpecError([Problem((name,), str(error))]) from None
    for name in ("search", "scheduler"):
        if isinstance(options.get(name), str):
            options[name] = {"algorithm": options[name]}
    if isinstance(options.get("budget"), str):
        options["budget"] = {"time": options["budget"]}
    if type(options.get("failures")) is int:
        options["failures"] = {"retries": options["failures"]}
    for name in ("callbacks", "trackers", "requirements", "warm_start"):
        given = options.get(name)
        if isinstance(given, (str, Mapping)) or callable(given) or hasattr(given, "options"):
            options[name] = [given]
        elif isinstance(options.get(name), tuple):
            options[name] = list(options[name])
    return options
