"""How a sweep is spoken of: by its metric, in its own time, and by the parameters that differ between trials."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xaytune.errors import SpecError
from xaytune.records.state import SweepState
from xaytune.report.printing import shortened
from xaytune.sweep import values
from xaytune.sweep.domains import Categorical
from xaytune.sweep.numbers import written
from xaytune.sweep.space import dotted
from xaytune.sweep.space_parser import parse_space
from xaytune.sweep.time_axis import STEPS, TimeAxis


def number(value: float | None) -> str:
    """Writes a number with four digits that count; a dash if there is none."""
    return "-" if value is None else written(value)


def value_text(value: Any) -> str:
    """Writes a value of a configuration, shortened where it is long; text that looks like no text is quoted."""
    if isinstance(value, float):
        return number(value)
    text = shortened(values.text(value))
    return f'"{text}"' if isinstance(value, str) and _looks_like_no_text(value) else text


def _looks_like_no_text(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return value.lower() in ("", "true", "false", "none", "null")
    return True


def configuration(config: Mapping[str, Any]) -> str:
    """Writes a configuration in one line, nested names with dots."""
    return ", ".join(f"{shortened(name)} {value_text(value)}" for name, value in dotted(config).items()) or "-"


class Terms:
    """The terms of a sweep.

    Attributes:
        metric: Name of the metric.
        constants: What is the same in all trials, by dotted name.

    Args:
        sweep: The sweep.
    """

    def __init__(self, sweep: SweepState) -> None:
        self.metric: str = sweep.spec["metric"]
        self._sweep = sweep
        self.constants = _constants(sweep.spec["space"])

    @property
    def told_in(self) -> TimeAxis:
        """What progress is told in: as the scheduler counts; else epochs, or steps where there are no epochs."""
        counted = self._sweep.spec["scheduler"].get("time_attr")
        if counted is None:
            trials = list(self._sweep.trials.values())
            no_epochs = not any(t.epoch for t in trials) and any(t.global_step for t in trials)
            counted = "global_step" if no_epochs else "epoch"
        return TimeAxis(counted)

    @property
    def tells_steps_too(self) -> bool:
        """Whether steps are told beside epochs; where trials were simulated by epochs, no steps are known."""
        return not self.told_in.by_step and not self._sweep.simulated

    def differing(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the values that may differ between trials, by dotted name."""
        return {name: value for name, value in dotted(config).items() if name not in self.constants}

    def configuration(self, config: Mapping[str, Any]) -> str:
        """Writes in one line what may differ between trials."""
        return configuration(self.differing(config))

    def lines(self, config: Mapping[str, Any]) -> list[str]:
        """Writes a configuration, and apart from it what is the same in all trials."""
        lines = [f"  config      {self.configuration(config)}"]
        if self.constants:
            lines.append(f"  in all      {configuration(self.constants)} (the same in all trials)")
        return lines

    def at(self, *, epoch: int, global_step: int) -> str:
        """Says where a trial was: ``epoch 3``; ``step 60`` in a sweep by steps, or in the first epoch."""
        axis = self.told_in if epoch else STEPS
        return axis.at(axis.of(epoch=epoch, global_step=global_step))

    def place(self, *, epoch: int, global_step: int) -> str:
        """Says where a trial was, with its steps where it counts epochs: ``epoch 3, step 66``."""
        at = self.at(epoch=epoch, global_step=global_step)
        return f"{at}, {STEPS.at(global_step)}" if epoch and self.tells_steps_too else at

    def after(self, *, epoch: int, global_step: int) -> str:
        """Says how much was trained: ``3 epochs (66 steps)``, or ``60 steps``."""
        steps = STEPS.count(global_step)
        if not epoch or self.told_in.by_step:
            return steps
        epochs = self.told_in.count(epoch)
        return f"{epochs} ({steps})" if self.tells_steps_too else epochs

    def worth(self, value: float | None) -> str:
        """Writes a value of the metric."""
        return f"{shortened(self.metric)} {number(value)}"


def _constants(raw: Mapping[str, Any]) -> dict[str, Any]:
    """What is the same in all trials: constants of the space, and choices of one value."""
    try:
        space = parse_space(raw)
    except SpecError:  # it names classes that cannot be imported here
        return {}
    single = {
        parameter.name: parameter.domain.choices[0]
        for parameter in space.parameters
        if isinstance(parameter.domain, Categorical) and len(parameter.domain.choices) == 1 and not parameter.when
    }
    return space.constants | single
