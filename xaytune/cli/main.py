"""The command line: ``xaytune run``, ``resume``, ``try``, ``check``, ``status`` and ``best``."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from xaytune.records.journal import JournalError
from xaytune.records.place import find_sweep
from xaytune.records.results import Results
from xaytune.report import text
from xaytune.sweep.errors import SpecError
from xaytune.sweep.loader import load_spec, locating, parse_assignments

if TYPE_CHECKING:
    from xaytune.report.live import LiveView
    from xaytune.tuning.session import RaySession

__all__ = ["main"]

DONE, SWEEP_FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


class _Commands(click.Group):
    """Turns what is wrong with the input into one message, and interrupts into their exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (SpecError, JournalError) as error:
            click.echo(str(error), err=True)
            ctx.exit(BAD_INPUT)
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)


_spec = click.argument("spec", type=click.Path(path_type=Path))
_set = click.option(
    "--set", "assignments", multiple=True, metavar="A.B=VALUE", help="Set an option of the spec; repeatable."
)
_set_parameter = click.option(
    "--set", "assignments", multiple=True, metavar="A.B=VALUE", help="Set a parameter of the space; repeatable."
)
_sweep = click.argument("sweep")
_storage = click.option(
    "--storage",
    default="runs",
    show_default=True,
    help="Folder of sweeps: a path, or a URI such as s3://bucket/sweeps.",
)
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="xaytune")
def main() -> None:
    """Tunes PyTorch trainers on Ray. Exit codes: 0 done, 1 the sweep failed, 2 bad input, 130 interrupted."""


@main.command()
@_spec
@click.option("--name", help="Name of the sweep; by default the spec's, with a number where it is taken.")
@_storage
@click.option("--num-samples", type=int, help="Configurations to draw, instead of the spec's.")
@_set
@_json
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


@main.command()
@_sweep
@_storage
@click.option("--num-samples", type=int, help="Configurations to draw in all, instead of the spec's.")
@_set
@_json
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
        click.echo(json.dumps(results.sweep.to_dict(), default=str) if as_json else text.summary(results.sweep))
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
        _print_json(results.sweep.to_dict())
    sys.exit({"completed": DONE, "interrupted": INTERRUPTED}.get(results.sweep.state, SWEEP_FAILED))


@main.command("try")
@_spec
@_set_parameter
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


@main.command()
@_spec
@_set
def check(spec: Path, assignments: tuple[str, ...]) -> None:
    """Checks a SPEC without running it, and says what its sweep will do."""
    loaded = load_spec(spec, parse_assignments(assignments))

    from xaytune.tuning.recipe import check_references

    with locating(spec):
        check_references(loaded.recipe, loaded.callbacks)
    click.echo(text.plan(loaded))


@main.command()
@_sweep
@_storage
@_json
def status(sweep: str, storage: str, as_json: bool) -> None:
    """Says how far a SWEEP is: a folder, or a name under the storage folder."""
    results = Results(find_sweep(sweep, storage))
    if as_json:
        _print_json(results.sweep.to_dict())
    else:
        click.echo(text.summary(results.sweep))


@main.command()
@_sweep
@_storage
@_json
def best(sweep: str, storage: str, as_json: bool) -> None:
    """Names the best trial of a SWEEP, its configuration and its checkpoint."""
    found = Results(find_sweep(sweep, storage)).sweep
    if found.best is None:
        raise JournalError(f"{sweep}: no trial has reported {found.spec['metric']!r}")
    if as_json:
        _print_json(found.best.to_dict())
    else:
        click.echo(text.best(found))


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, default=str))
