"""Words for what is recorded: configurations, numbers, durations, and the summary of a sweep."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from xaytune.records.place import DEFAULT_STORAGE
from xaytune.records.results import dotted
from xaytune.records.state import SweepState, TrialRecord
from xaytune.sweep.algorithms import AshaSpec
from xaytune.sweep.spec import SweepSpec

__all__ = [
    "best",
    "clock",
    "configuration",
    "duration",
    "ending",
    "metrics",
    "number",
    "plan",
    "retried",
    "summary",
    "tally",
    "trials",
]


def number(value: float | None) -> str:
    """Writes a number with four digits that count; a dash if there is none."""
    return "-" if value is None else f"{value:.4g}"


def configuration(config: Mapping[str, Any]) -> str:
    """Writes a configuration in one line, nested names with dots."""
    shown = (
        f"{name} {number(value) if isinstance(value, float) else value}" for name, value in dotted(config).items()
    )
    return ", ".join(shown)


def metrics(values: Mapping[str, Any]) -> str:
    """Writes metrics in one line; what is no number as it is."""
    return ", ".join(
        f"{name} {value if isinstance(value, str) else number(float(value))}" for name, value in values.items()
    )


def duration(seconds: float) -> str:
    """Writes a duration in its two largest units."""
    whole = int(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 60} min {whole % 60} s" if whole >= 60 else f"{whole} s"


def clock(seconds: float) -> str:
    """Writes a time since a beginning: minutes and seconds with a tenth, hours where there are some."""
    minutes, rest = divmod(max(0.0, round(seconds, 1)), 60)
    if minutes < 60:
        return f"{minutes:.0f}:{rest:04.1f}"
    return f"{minutes // 60:.0f}:{minutes % 60:02.0f}:{rest:04.1f}"


def tally(sweep: SweepState) -> str:
    """Writes how many trials are in each status, without those that no trial is in."""
    counts = {"cut off" if n == "running" and sweep.state == "lost" else n: c for n, c in sweep.counts().items()}
    return ", ".join(f"{count} {status}" for status, count in counts.items() if count)


def ending(trial: TrialRecord, metric: str) -> str:
    """Writes how a trial ended, in one line."""
    reason = f": {trial.reason}" if trial.reason else ""
    worth = f" ({metric} {number(trial.value)})" if trial.status != "failed" else ""
    return f"trial {trial.number} {trial.status} at epoch {trial.epoch}{worth}{reason}"


def retried(trial: TrialRecord) -> str:
    """Writes that a trial is begun again, in one line."""
    return f"trial {trial.number} is begun again: {trial.reason}"


def best(sweep: SweepState) -> str:
    """Writes the best trial of a sweep that has one: its value, its configuration and its checkpoint."""
    trial = sweep.best
    if trial is None or trial.best is None:
        raise ValueError(f"{sweep.name} has no best trial yet")
    value = f"{sweep.spec['metric']} {number(trial.value)}"
    return "\n".join(
        [
            f"best: trial {trial.number}, {value} at epoch {trial.best.epoch}",
            f"  config      {configuration(trial.config)}",
            f"  checkpoint  {_checkpoint(trial)}",
        ]
    )


def _checkpoint(trial: TrialRecord) -> str:
    """The path of the checkpoint, and its step where that is not the best one."""
    if trial.best is None or trial.checkpoint_step in (None, trial.best.global_step):
        return trial.checkpoint or "-"
    return f"{trial.checkpoint} (the newest; the best value was at step {trial.best.global_step})"


def trials(count: int) -> str:
    """Writes a number of trials."""
    return f"{count} trial{'' if count == 1 else 's'}"


def summary(sweep: SweepState, resume: str | None = None) -> str:
    """Writes what a sweep found: its state, its trials, the best of them, and why others failed.

    Args:
        sweep: The sweep.
        resume: What follows ``xaytune resume`` to go on with it; by default its name, or its folder.
    """
    took = f" in {duration(sweep.running_s(sweep.ended))}" if sweep.ended else ""
    lines = [f"{sweep.name}: {sweep.state}{took}, {trials(sweep.num_trials)}: {tally(sweep)}"]
    if sweep.reason:
        lines.append(f"  {sweep.reason}")
    if sweep.state in ("interrupted", "lost"):
        by_name = sweep.root == f"{DEFAULT_STORAGE}/{sweep.name}"
        resume = resume or (sweep.name if by_name else shlex.quote(sweep.root))
        lines.append(f"  xaytune resume {resume} goes on with it")
    if sweep.best is not None:
        lines.append(best(sweep))
    failed = [trial for trial in list(sweep.trials.values()) if trial.status == "failed"]
    if failed:
        lines.append(
            f"failed: {_listed([trial.number for trial in failed])}; the first, trial {failed[0].number}, with"
        )
        # Of a lost process there is no traceback, only Ray's guesses: they are in the journal.
        error = failed[0].error or ""
        shown = error if "Traceback" in error else str(failed[0].reason)
        lines += [f"  {line}" for line in shown.rstrip().splitlines()]
    return "\n".join(lines)


def _product(spec: SweepSpec) -> str:
    """How the number of trials came about, where a grid multiplies it."""
    points = spec.num_trials // spec.num_samples
    return f" ({spec.num_samples} samples of each of {points} grid points)" if points > 1 else ""


def _listed(numbers: list[int], most: int = 10) -> str:
    shown = ", ".join(map(str, numbers[:most])) + (", ..." if len(numbers) > most else "")
    return f"trial {shown}" if len(numbers) == 1 else f"{len(numbers)} trials ({shown})"


def plan(spec: SweepSpec) -> str:
    """Writes what a sweep will do: its trials, their resources, when they are judged, and its cost at most."""
    resources = " and ".join(
        ", ".join(f"{name} {amount:g}" for name, amount in bundle.items()) for bundle in spec.bundles
    )
    at_once = spec.max_concurrent_trials or "as many as there is room for"
    lines = [
        f"trials      {spec.num_trials}{_product(spec)}, {at_once} at once; each reserves {resources}",
        f"search      {spec.search.algorithm}, seed {spec.search.seed}",
        f"metric      {spec.metric}, {spec.mode}",
    ]
    scheduler = spec.scheduler
    if not isinstance(scheduler, AshaSpec):
        lines.append(f"scheduler   {scheduler.algorithm}")
        lines.append("at most     what the recipe trains: the scheduler ends no trial at a set time")
        return "\n".join(lines)
    unit = "epochs" if scheduler.time_attr == "epoch" else "steps"
    rungs = ", ".join(map(str, scheduler.rungs))
    share = f"1/{scheduler.reduction_factor:g}"
    lines.append(f"scheduler   asha: judged after {rungs} {unit}, about the best {share} go on each time")
    lines.append(f"at most     {spec.num_trials * scheduler.max_t} {unit}, were no trial stopped early")
    return "\n".join(lines)
