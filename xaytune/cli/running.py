"""Commands that train: ``run``, ``resume``, ``try``; and ``check``, which says what they would do."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, TYPE_CHECKING, NoReturn, cast

import click

from xaytune.cli.clusters import resume_on_cluster
from xaytune.cli.ending import SWEEP_FAILED, end_as
from xaytune.cli.options import (
    Cluster,
    as_json_option,
    cluster_options,
    name_option,
    print_json,
    say,
    set_options,
    spec_argument,
    storage_option,
    sweep_argument,
)
from xaytune.errors import Problem, SpecError
from xaytune.records.journal import Event
from xaytune.records.results import Results
from xaytune.records.resumed_spec import has_more
from xaytune.records.state import SweepState
from xaytune.records.stream import as_line
from xaytune.records.sweep_folder import find_sweep
from xaytune.records.warm_start import warm_started
from xaytune.report import text
from xaytune.report.printing import Lenient
from xaytune.report.terms import configuration, number
from xaytune.sweep.command import what_is_missing
from xaytune.sweep.gpus import count_gpus, unused_gpus
from xaytune.sweep.loader import load_spec, locating, parse_assignments
from xaytune.sweep.references import check_references
from xaytune.sweep.spec import SweepSpec

if TYPE_CHECKING:
    from xaytune.driver.recorder import Listener
    from xaytune.ray_tune.session import RaySession

# Configurations that `check` shows.
_SAMPLES = 10
_address_option = click.option(
    "--address",
    help="A cluster that this machine is a node of, HEAD:6379 or auto; by default what RAY_ADDRESS says.",
)
_events_option = click.option(
    "--events", "as_events", is_flag=True, help="Print the events of the journal, a line of JSON each (RFC 7464)."
)


@click.command()
@spec_argument
@name_option
@storage_option
@set_options
@as_json_option
@_events_option
@_address_option
def run(
    spec: Path,
    name: str | None,
    storage: str,
    assignments: tuple[str, ...],
    as_json: bool,
    as_events: bool,
    address: str | None,
) -> None:
    """Runs the sweep of a SPEC to its end.

    The first Ctrl-C ends its trials through their loops; a second one ends the sweep at once. `resume` continues
    it.
    """
    loaded = load_spec(spec, parse_assignments(assignments))

    def drive(session: RaySession, listener: Listener) -> Results:
        from xaytune.ray_tune.running import run_sweep

        with locating(spec):
            return run_sweep(loaded, storage, name, spec.stem, session, listener)

    _run(drive, as_json, as_events, address=address)


@click.command()
@sweep_argument
@storage_option
@set_options
@click.option(
    "--resume-errored", is_flag=True, help="Resume trials that failed, too: once what they failed for is mended."
)
@as_json_option
@_events_option
@cluster_options
def resume(
    sweep: str,
    storage: str,
    assignments: tuple[str, ...],
    resume_errored: bool,
    as_json: bool,
    as_events: bool,
    cluster: Cluster,
) -> None:
    """Resumes a SWEEP that was interrupted, killed, or failed.

    SWEEP is a folder, a URI, or a name in the storage. What was finished stays as it is; unfinished trials resume
    from their last checkpoint. With --address or --cluster, SWEEP is the name of a sweep that was launched there,
    or of any in the --storage.
    """
    if cluster.is_given:
        options = ["--resume-errored"] if resume_errored else []
        resume_on_cluster(sweep, storage, assignments, options, as_json, cluster)
        return
    overrides = parse_assignments(assignments)
    sweep_folder = find_sweep(sweep, storage)
    results = Results(sweep_folder)  # a journal that cannot be read is reported before Ray is started
    if not has_more(results.sweep, overrides, resume_errored=resume_errored):
        if as_json:
            print_json(results.sweep.to_dict())
        elif as_events:
            for event in results.events():
                click.echo(as_line(event))
        else:
            say(text.summary(results.sweep))
            say(text.nothing_left(results.sweep))
        return

    def drive(session: RaySession, listener: Listener) -> Results:
        from xaytune.ray_tune.running import WATCHED_S, resume_sweep

        if sweep_folder.remote is not None and (host := results.sweep.may_run_on) is not None:
            say(
                f"{results.sweep.name} ran on {host}: watching for {WATCHED_S:g} s whether it still does", err=True
            )
        return resume_sweep(sweep_folder, session, listener, overrides, resume_errored=resume_errored)

    _run(drive, as_json, as_events, journal=lambda: Results(sweep_folder).events())


def _run(
    drive: Callable[[RaySession, Listener], Results],
    as_json: bool,
    as_events: bool,
    address: str | None = None,
    journal: Callable[[], Iterable[Event]] | None = None,
) -> NoReturn:
    """Runs a sweep while it is shown, and exits with its code."""
    from xaytune.ray_tune.session import RaySession

    with contextlib.ExitStack() as stack:
        if as_json:  # whatever trials print must not get between the lines of the JSON
            stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        session = stack.enter_context(RaySession(address))  # while it starts, the rest is imported

        from rich.console import Console

        from xaytune.report.live import LiveView

        listener: Listener = (
            _Events(journal) if as_events else stack.enter_context(LiveView(Console(stderr=as_json)))
        )
        try:
            results = drive(session, listener)
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            raise
    end_as(results.sweep, as_json)


class _Events:
    """Prints events as they come, and before the first those that a journal has already."""

    def __init__(self, journal: Callable[[], Iterable[Event]] | None) -> None:
        self._journal = journal
        self._out = cast("IO[str]", Lenient(sys.stdout))  # nobody who reads them ends a sweep

    def __call__(self, sweep: SweepState, event: Event) -> None:
        for one in [event] if self._journal is None else self._journal():
            click.echo(as_line(one), file=self._out)
        self._journal = None


@click.command("try")
@spec_argument
@click.option(
    "--set", "assignments", multiple=True, metavar="A.B=VALUE", help="Set a parameter of the space; repeatable."
)
def try_(spec: Path, assignments: tuple[str, ...]) -> None:
    """Trains one configuration of a SPEC here, without Ray.

    A recipe is trained in this process, so that a debugger works. Parameters that are not --set are drawn as for
    the sweep's first trial.
    """
    loaded = load_spec(spec)
    values = {name.removeprefix("space."): value for name, value in parse_assignments(assignments).items()}

    from xaytune.driver.trial_ends import never_reported
    from xaytune.in_process.trying import try_configuration
    from xaytune.trial.common.metrics import readable

    for problem in loaded.space.outside(values):
        say(f"note: {problem}: the sweep would not try that", err=True)
    with locating(spec):
        ended = try_configuration(
            loaded,
            values,
            on_start=lambda config: say(configuration(config)),
            on_epoch_end=lambda state: say(f"epoch {state.epoch + 1}: {text.metrics(readable(state.metrics))}"),
            on_command=lambda words: say(f"$ {shlex.join(words)}"),
        )
    failure = ended.failure
    if failure is not None and failure.kind == "no_metric":
        with locating(spec):
            raise SpecError([Problem(("metric",), failure.error)])
    if failure is not None and failure.kind != "skipped":
        click.echo(failure.traceback or failure.error, err=True)
        sys.exit(SWEEP_FAILED)
    if ended.reason is None and loaded.metric not in ended.metrics:
        with locating(spec):
            raise SpecError([never_reported(loaded.trains, loaded.metric, ended.metrics)])
    value = ended.best.value if ended.best is not None else None
    click.echo(f"{ended.reason or 'completed'}: best {loaded.metric} {number(value)}")


@click.command()
@spec_argument
@storage_option
@set_options
@click.option(
    "--time",
    "timed",
    is_flag=True,
    help="Train an epoch (or 60 steps) of the first configuration here, and show what the sweep costs at most.",
)
def check(spec: Path, storage: str, assignments: tuple[str, ...], timed: bool) -> None:
    """Checks a SPEC and shows what its sweep will do.

    Nothing is trained without --time. The configurations shown are those that the sweep would try first.
    """
    loaded = load_spec(spec, parse_assignments(assignments))

    from xaytune.report.plan import first_configurations, plan, samples
    from xaytune.trial.trackers.tracking import tracker_problems

    with locating(spec):
        check_references(loaded.functions)
        if loaded.command is not None and (missing := what_is_missing(loaded.command)) is not None:
            raise SpecError([missing])
        if problems := tracker_problems(loaded.trackers):
            raise SpecError(problems)
        loaded = warm_started(loaded, storage)
        configs = first_configurations(loaded, _SAMPLES)
    say(plan(loaded))
    say(samples(loaded, configs))
    if (unused := unused_gpus(loaded, count_gpus())) is not None:
        say(f"note: {unused}")
    if loaded.command is not None and (unnamed := loaded.command.unnamed(loaded.space)):
        say(
            f"note: the command does not name {', '.join(unnamed)}: write {{{unnamed[0]}}} or {{args}} into it, "
            "unless the program reads xaytune.current_trial().config"
        )
    if timed:
        _time(spec, loaded)


def _time(spec: Path, loaded: SweepSpec) -> None:
    """Says what the sweep costs, by an epoch that is trained here."""
    from xaytune.in_process.timing import time_training
    from xaytune.report.plan import cost

    with locating(spec):
        timing = time_training(loaded)
    if timing.failure is not None:
        click.echo(timing.failure.traceback or timing.failure.error, err=True)
        sys.exit(SWEEP_FAILED)
    say(cost(loaded, timing))


COMMANDS = (run, resume, try_, check)
