"""Commands for sweeps on a cluster: ``launch``, ``attach``, ``stop``; and what others do with ``--address``."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from xaytune.cli.ending import DONE, INTERRUPTED, SWEEP_FAILED, end_as
from xaytune.cli.options import (
    Cluster,
    as_json_option,
    cluster_options,
    name_option,
    print_json,
    say,
    set_options,
    spec_argument,
    sweep_argument,
)
from xaytune.errors import ClusterError
from xaytune.records.naming import check_name, default_name
from xaytune.records.remote import is_remote
from xaytune.records.results import Results
from xaytune.records.resumed_spec import has_more, resumed_spec
from xaytune.records.state import SweepState
from xaytune.records.sweep_folder import find_sweep
from xaytune.report import text
from xaytune.sweep.loader import load_spec, parse_assignments
from xaytune.sweep.spec import SweepSpec

if TYPE_CHECKING:
    from xaytune.cluster.connection import Connection
    from xaytune.cluster.sweeps import ClusterSweep


@click.command()
@spec_argument
@name_option
@click.option(
    "--storage",
    default="~/runs",
    show_default=True,
    help="Folder of sweeps that all nodes of the cluster share: a path there, or a URI such as s3://bucket/sweeps.",
)
@set_options
@as_json_option
@cluster_options
@click.option("--detach", is_flag=True, help="Return when the sweep is launched; do not follow it.")
def launch(
    spec: Path,
    name: str | None,
    storage: str,
    assignments: tuple[str, ...],
    as_json: bool,
    cluster: Cluster,
    detach: bool,
) -> None:
    """Runs the sweep of a SPEC on a cluster.

    The current folder is shipped there. The sweep continues when this command ends: `attach` follows it again,
    `stop` ends it, and `resume` continues it after that.
    """
    loaded = load_spec(spec, parse_assignments(assignments))
    command = ["run", _shipped(spec), "--storage", _kept(storage), *_repeated(assignments)]

    if name is not None:
        check_name(name)
        command += ["--name", name]

    from xaytune.cluster.connection import connected

    with connected(cluster.address, cluster.file) as connection:
        _submit(connection, command, name or default_name(spec.stem), storage, loaded, as_json, detach)


@click.command()
@sweep_argument
@as_json_option
@cluster_options
def attach(sweep: str, as_json: bool, cluster: Cluster) -> None:
    """Follows a SWEEP that was launched on a cluster.

    It is shown until it ends. Ctrl-C ends this command alone: the sweep continues.
    """
    follow_on_cluster(sweep, as_json, cluster)


@click.command()
@sweep_argument
@cluster_options
def stop(sweep: str, cluster: Cluster) -> None:
    """Ends a SWEEP that was launched on a cluster.

    Its trials save and end through their loops; `resume` continues it.
    """
    with _found(sweep, cluster) as found:
        if found.details().status.is_terminal():
            click.echo(f"{sweep} has ended already")
            return
        found.stop()
        click.echo(f"{sweep} was asked to stop: its trials save and end through their loops")
        _follow(found, as_json=False, stopping=True)


COMMANDS = (launch, attach, stop)


def resume_on_cluster(
    sweep: str,
    storage: str,
    assignments: tuple[str, ...],
    flags: Sequence[str],
    as_json: bool,
    cluster: Cluster,
) -> None:
    """Resumes a sweep on a cluster, and follows it: one that was launched there, or any in a storage."""
    from xaytune.cluster.connection import connected
    from xaytune.cluster.sweeps import find

    with connected(cluster.address, cluster.file) as connection:
        options, overrides = [*_repeated(assignments), *flags], parse_assignments(assignments)
        if _outlives(storage):
            spec = _resumed_spec(connection, sweep, storage, overrides)
            _submit(connection, ["resume", sweep, "--storage", storage, *options], sweep, storage, spec, as_json)
            return
        found = find(connection, sweep)
        state = found.state()
        if not found.details().status.is_terminal():
            raise ClusterError(
                f"{sweep} is running; to follow it: xaytune attach {shlex.quote(sweep)}{connection.options}"
            )
        if state is None:
            raise ClusterError(f"{found.why_not_begun(found.details())}; launch it again")
        if not has_more(state, overrides, resume_errored=bool(flags)):
            _print(state, as_json, connection)
            if not as_json:
                say(text.nothing_left(state))
            return
        command = ["resume", state.name, "--storage", found.storage, *options]
        _submit(connection, command, state.name, found.storage, resumed_spec(state, overrides), as_json)


def _resumed_spec(
    connection: Connection, sweep: str, storage: str, overrides: Mapping[str, Any]
) -> SweepSpec | None:
    """Returns the spec of a sweep in a storage, where it is known: by its journal, or by a job that ran it."""
    from xaytune.cluster.sweeps import find

    if is_remote(storage):
        return resumed_spec(Results(find_sweep(sweep, storage)).sweep, overrides)
    try:
        state = find(connection, sweep).state()
    except ClusterError:  # a cluster that is new
        return None
    return resumed_spec(state, overrides) if state is not None else None


def follow_on_cluster(sweep: str, as_json: bool, cluster: Cluster) -> None:
    """Follows a sweep that was launched on a cluster."""
    with _found(sweep, cluster) as found:
        _follow(found, as_json)


def print_status_on_cluster(sweep: str, as_json: bool, cluster: Cluster) -> None:
    """Says how far a sweep is that was launched on a cluster."""
    with _found(sweep, cluster) as found:
        state = found.state()
        if state is None:
            raise ClusterError(found.why_not_begun(found.details()))
    _print(state, as_json, found.connection)


@contextlib.contextmanager
def _found(sweep: str, cluster: Cluster) -> Iterator[ClusterSweep]:
    """Connects to a cluster, and yields a sweep that was launched there."""
    from xaytune.cluster.connection import connected
    from xaytune.cluster.sweeps import find

    with connected(cluster.address, cluster.file) as connection:
        yield find(connection, sweep)


def _print(state: SweepState, as_json: bool, connection: Connection) -> None:
    if as_json:
        print_json(state.to_dict())
    else:
        say(text.status(state, f"{shlex.quote(state.name)}{connection.options}"))


def _shipped(spec: Path) -> str:
    """Returns the path of a spec in the folder that is shipped."""
    here = Path.cwd()
    try:
        return spec.resolve().relative_to(here).as_posix()
    except ValueError:
        raise click.UsageError(
            f"{spec} is not in {here}, the folder that is shipped: go to one that holds it"
        ) from None


def _kept(storage: str) -> str:
    if _outlives(storage):
        return storage
    raise click.UsageError(
        f"--storage must be a path from / or ~ on the cluster's nodes, or a URI (got {storage!r}): the folder "
        "that a sweep runs in there does not outlive it"
    )


def _outlives(storage: str) -> bool:
    """Whether a storage outlives the folder that a sweep runs in on a cluster."""
    return is_remote(storage) or storage.startswith(("/", "~"))


def _repeated(assignments: tuple[str, ...]) -> list[str]:
    """Returns assignments as options."""
    return [part for assignment in assignments for part in ("--set", assignment)]


def _submit(
    connection: Connection,
    command: list[str],
    name: str,
    storage: str,
    spec: SweepSpec | None,
    as_json: bool,
    detach: bool = False,
) -> None:
    from xaytune.cluster.sweeps import submit

    launched = submit(connection, command, name, storage, spec)
    attach = f"xaytune attach {launched.job}{connection.options}"
    say(f"{name} was launched as {launched.job}; to follow it: {attach}", err=as_json)
    if not detach:
        _follow(launched, as_json)
    elif as_json:
        print_json({"sweep": name, "job": launched.job, "storage": storage})


def _follow(sweep: ClusterSweep, as_json: bool, stopping: bool = False) -> None:
    """Shows a sweep until it ends, and exits with its code; that of one that was to stop is success."""
    from rich.console import Console

    from xaytune.cluster.following import follow
    from xaytune.report.live import LiveView

    options = sweep.connection.options
    try:
        with LiveView(Console(stderr=as_json), f"{sweep.job}{options}") as view:
            state, details = follow(sweep, view, lambda line: say(line, err=as_json))
    except KeyboardInterrupt:
        lines = [
            f"it {'is stopping' if stopping else 'continues'}, and is not followed any more",
            f"  to follow it: xaytune attach {sweep.job}{options}",
            *([] if stopping else [f"  to end it: xaytune stop {sweep.job}{options}"]),
        ]
        say("\n".join(lines), err=as_json)
        sys.exit(INTERRUPTED)
    if state is not None:
        end_as(state, as_json, stopping)
    if details.driver_exit_code is None:  # else the job has said itself what was wrong
        click.echo(sweep.why_not_begun(details), err=True)
    stopped = details.status.value == "STOPPED"
    code = SWEEP_FAILED if details.driver_exit_code is None else details.driver_exit_code
    sys.exit(DONE if stopped and stopping else code)
