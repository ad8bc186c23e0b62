"""Commands that train: ``run``, ``resume``, ``try``; and ``check``, which says what they would do."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from xaytune.cli.options import (
    as_json_option,
    print_json,
    set_option,
    spec_argument,
    storage_option,
    sweep_argument,
)
from xaytune.records.place import find_sweep
from xaytune.records.results import Results
from xaytune.report import text
from xaytune.sweep.errors import SpecError
from xaytune.sweep.loader import load_spec, locating, parse_assignments

if TYPE_CHECKING:
    from xaytune.report.live import LiveView
    from xaytune.tuning.session import RaySession

__all__ = ["COMMANDS"]

DONE, SWEEP_FAILED, INTERRUPTED = 0, 1, 130


@click.command()
@spec_argument
@click.option("--name", help="Name of the sweep; by default the spec's, with a number where it is taken.")
@storage_option
@click.option("--num-samples", type=int, help="Configurations to draw, instead of the spec's.")
@set_option
@as_json_option
def run(
    spec: Path,
    name: str | None,
    storage: str,
    num_samples: int | None,
    assignments: tuple[str, ...],
    as_json: bool,
) -> None:
    """Runs the sweep of a SPEC to its end."""
    overrides = parse_assignments(assignments)
    if num_samples is not None:
        overrides["num_samples"] = num_samples
    loaded = load_spec(spec, overrides)

    def drive(session: RaySession, view: LiveView) -> Results:
        from xaytune.tuning.driver import run_sweep

        with locating(spec):
            return run_sweep(loaded, storage, name, spec.stem, session, view)

    _show(drive, as_json)


@click.command()
@sweep_argument
@storage_option
@click.option("--num-samples", type=int, help="Configurations to draw in all, instead of the spec's.")
@set_option
@as_json_option
def resume(sweep: str, storage: str, num_samples: int | None, assignments: tuple[str, ...], as_json: bool) -> None:
    """Goes on with a SWEEP that was interrupted, killed, or failed: a folder, or a name under the storage folder.

    What was finished stays as it is; unfinished trials go on from their last checkpoint.
    """
    overrides = parse_assignments(assignments)
    if num_samples is not None:
        overrides["num_samples"] = num_samples
    place = find_sweep(sweep, storage)
    results = Results(place)  # a journal that cannot be read is told before Ray is started
    if results.sweep.done and not overrides:
        if as_json:
            print_json(results.sweep.to_dict())
        else:
            click.echo(text.summary(results.sweep))
        return

    def drive(session: RaySession, view: LiveView) -> Results:
        from xaytune.tuning.driver import resume_sweep

        return resume_sweep(place, session, view, overrides)

    _show(drive, as_json)


def _show(drive: Callable[[RaySession, LiveView], Results], as_json: bool) -> NoReturn:
    """Runs a sweep while it is shown, and exits with its code."""
    from xaytune.tuning.session import RaySession

    with contextlib.ExitStack() as stack:
        if as_json:  # whatever trials print must not get between the lines of the JSON
            stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        session = stack.enter_context(RaySession())  # while it starts, the rest is imported

        from rich.console import Console

        from xaytune.report.live import LiveView
        from xaytune.tuning.storage import StorageError

        view = stack.enter_context(LiveView(Console(stderr=as_json)))
        try:
            results = drive(session, view)
        except StorageError as error:
            raise click.ClickException(str(error)) from None
    if as_json:
        print_json(results.sweep.to_dict())
    sys.exit({"completed": DONE, "interrupted": INTERRUPTED}.get(results.sweep.state, SWEEP_FAILED))


@click.command("try")
@spec_argument
@click.option(
    "--set", "assignments", multiple=True, metavar="A.B=VALUE", help="Set a parameter of the space; repeatable."
)
def try_(spec: Path, assignments: tuple[str, ...]) -> None:
    """Trains one configuration of a SPEC in this process, without Ray.

    --set sets parameters of the space; the others are drawn as for the sweep's first trial.
    """
    loaded = load_spec(spec)
    values = {name.removeprefix("space."): value for name, value in parse_assignments(assignments).items()}

    from xaytune.tuning.local import try_configuration
    from xaytune.tuning.recipe import never_reported

    with locating(spec):
        report = try_configuration(
            loaded,
            values,
            on_start=lambda config: click.echo(text.configuration(config)),
            on_epoch_end=lambda state: click.echo(f"epoch {state.epoch + 1}: {text.metrics(state.metrics)}"),
        )
    if report.error is not None:
        click.echo(report.error, err=True)
        sys.exit(SWEEP_FAILED)
    if report.reason is None and loaded.metric not in report.metrics:
        with locating(spec):
            raise SpecError([never_reported(loaded, report.metrics)])
    value = report.best.value if report.best is not None else None
    click.echo(f"{report.reason or 'completed'}: best {loaded.metric} {text.number(value)}")


@click.command()
@spec_argument
@set_option
def check(spec: Path, assignments: tuple[str, ...]) -> None:
    """Checks a SPEC without running it, and says what its sweep will do."""
    loaded = load_spec(spec, parse_assignments(assignments))

    from xaytune.tuning.recipe import check_references

    with locating(spec):
        check_references(loaded.recipe, loaded.callbacks, loaded.trackers)
    click.echo(text.plan(loaded))


COMMANDS = (run, resume, try_, check)
