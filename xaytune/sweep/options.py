"""The smaller options of a spec, and the forms in which they may be written."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, WrapValidator

from xaytune.sweep.algorithms import Options
from xaytune.sweep.values import read

__all__ = [
    "BudgetSpec",
    "CheckpointSpec",
    "FailuresSpec",
    "Reference",
    "Resources",
    "TrackerName",
    "reference_name",
    "spelt_out",
]


class FailuresSpec(Options):
    """What to do about failures.

    Attributes:
        retries: Times that a trial is restarted, from its last checkpoint, after it lost its process. Lost
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

    @property
    def limited(self) -> bool:
        """Whether the budget ever ends a sweep."""
        return self.time is not None or self.epochs is not None


class CheckpointSpec(Options):
    """Which checkpoints of a sweep are kept.

    Attributes:
        num_to_keep: Of the trials that have ended the best so many keep one, that of their best value if they
            have it, else their newest; None keeps all. What other trials resume from is never deleted.
    """

    num_to_keep: int | None = Field(default=None, ge=1)


def _check_reference(value: Any) -> Any:
    if callable(value) or (isinstance(value, str) and re.fullmatch(r"[\w.]+:[\w.]+", value)):
        return value
    hint = ""
    if isinstance(value, str) and (match := re.fullmatch(r"(?:\./)?([\w/]+)\.py(?::(\w+))?", value)):
        hint = f": write {match[1].replace('/', '.')}:{match[2] or 'train'}"
    raise ValueError(f"must be 'module:function', or a function (got {value!r}){hint}")


_Bundle = dict[str, Annotated[float, Field(ge=0)]]
Resources = Annotated[
    Annotated[_Bundle, Tag("bundle")] | Annotated[list[_Bundle], Field(min_length=1), Tag("bundles")],
    Discriminator(lambda value: "bundles" if isinstance(value, list) else "bundle"),
]
TrackerName = Literal["tensorboard", "mlflow", "wandb"]
Reference = Annotated[str | Callable[..., Any], WrapValidator(lambda value, _: _check_reference(value))]


def reference_name(reference: Reference) -> str:
    """Returns ``module:function`` for a function or a reference to one."""
    if isinstance(reference, str):
        return reference
    return f"{reference.__module__}:{getattr(reference, '__qualname__', type(reference).__name__)}"


def spelt_out(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options of a spec in their full forms, where they were written in short.

    ``scheduler: asha`` is ``{algorithm: asha}``, ``budget: 2h`` is ``{time: 2h}``, ``failures: 3`` is
    ``{retries: 3}``, a callback or tracker alone is a list of it; null is what is left out.

    Raises:
        ValueError: A value is written in a form that cannot be read.
    """
    options = {str(name): value for name, value in raw.items() if value is not None}
    for name in options.keys() - {"space", "points_to_evaluate"}:  # those are read where they are parsed
        options[name] = read(options[name])
    for name in ("search", "scheduler"):
        if isinstance(options.get(name), str):
            options[name] = {"algorithm": options[name]}
    if isinstance(options.get("budget"), str):
        options["budget"] = {"time": options["budget"]}
    if type(options.get("failures")) is int:
        options["failures"] = {"retries": options["failures"]}
    for name in ("callbacks", "trackers", "requirements", "warm_start"):
        if isinstance(options.get(name), str) or callable(options.get(name)):
            options[name] = [options[name]]
        elif isinstance(options.get(name), tuple):
            options[name] = list(options[name])
    return options
