"""The command ``simulate``: what a sweep would decide, in virtual time."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from xaytune.cli.options import (
    as_json_option,
    print_json,
    set_options,
    spec_argument,
    storage_option,
)
from xaytune.errors import Problem, SpecError
from xaytune.records.naming import new_sweep_folder
from xaytune.records.results import Results
from xaytune.records.sweep_folder import find_sweep
from xaytune.records.warm_start import warm_started
from xaytune.report import text
from xaytune.sweep.loader import load_spec, locating, parse_assignments
from xaytune.sweep.numbers import trials
from xaytune.sweep.spec import SweepSpec

if TYPE_CHECKING:
    from xaytune.simulation.curves import Curves


@click.command()
@spec_argument
@click.option(
    "--curves",
    "what",
    required=True,
    metavar="SWEEP|MODULE:FUNCTION",
    help="The learning curves: those of an earlier sweep (a name or a folder), or those that a function of "
    "(config) returns as (times, values), the seconds and the metric after each epoch or step.",
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    help="Trials that train at once; each value comes after its seconds of training. By default the values of an "
    "earlier sweep come in their recorded order, and 4 workers play the curves of a function.",
)
@click.option("--nearest", is_flag=True, help="Play the nearest curve for configurations that were never trained.")
@click.option("--name", help="Name of the simulation; by default SPEC-simulated, with a number where it is taken.")
@storage_option
@set_options
@as_json_option
def simulate(
    spec: Path,
    what: str,
    workers: int | None,
    nearest: bool,
    name: str | None,
    storage: str,
    assignments: tuple[str, ...],
    as_json: bool,
) -> None:
    """Simulates the sweep of a SPEC on known learning curves.

    It shows what the search and the scheduler would have decided, in virtual time. The journal that it writes is
    like that of a real sweep: `status`, `best`, `why`, `report` and `compare` read it.
    """
    loaded = load_spec(spec, parse_assignments(assignments))

    from xaytune.simulation.simulate import simulate as play

    with locating(spec):
        loaded = warm_started(loaded, storage)
        curves, at_once = _curves(loaded, what, storage, workers, nearest)
        sweep_folder = new_sweep_folder(storage, name, f"{spec.stem}-simulated")
        try:
            simulated = play(loaded, curves, sweep_folder, at_once)
        except BaseException:
            sweep_folder.remove()
            raise
    if as_json:
        told = {name: getattr(simulated, name) for name in ("decisions", "censored", "matched", "seconds")}
        print_json({**simulated.results.sweep.to_dict(), **told})
        return
    click.echo(text.summary(simulated.results.sweep))
    click.echo(f"simulated: {simulated.decisions} decisions in {text.duration(simulated.seconds)} of virtual time")
    if simulated.matched:
        played = trials(simulated.matched)
        click.echo(f"  {played} played the curve of the nearest configuration that was trained")
    if simulated.censored:
        click.echo(
            f"  {trials(simulated.censored)} would have trained on where the earlier sweep had stopped: what "
            "that would have reached is not known, and what was decided after it rests on fewer values"
        )


def _curves(spec: SweepSpec, what: str, storage: str, workers: int | None, nearest: bool) -> tuple[Curves, int]:
    """Returns what ``--curves`` names, and how many trials train at once."""
    from xaytune.search.build import method_for
    from xaytune.simulation.curves import RecordedCurves, surrogate

    if ":" in what and "/" not in what:
        sys.path.insert(0, os.getcwd())
        return surrogate(what), workers or 4
    results = Results(find_sweep(what, storage))
    theirs = results.sweep.spec["metric"], results.sweep.spec["mode"]
    if theirs != (spec.metric, spec.mode):
        problem = Problem(
            ("metric",),
            f"the curves of {results.sweep.name} are of {theirs[0]} ({theirs[1]}), and this spec is for "
            f"{spec.metric} ({spec.mode}): give curves of the same metric",
        )
        raise SpecError([problem])
    axis = method_for(spec).points.axis
    curves = RecordedCurves(results, spec.space, axis, nearest=nearest, timed=workers is None)
    return curves, workers or curves.workers


COMMANDS = (simulate,)
