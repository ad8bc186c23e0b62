"""Arguments and options that several commands take."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import click
from click.shell_completion import CompletionItem

from xaytune.records.sweep_folder import DEFAULT_STORAGE, sweeps_in
from xaytune.report.printing import printable

spec_argument = click.argument("spec", type=click.Path(path_type=Path))


def _complete_sweep(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of the storage's sweeps, and folders."""
    known: list[str] = []
    with contextlib.suppress(OSError):
        known = sweeps_in(context.params.get("storage") or DEFAULT_STORAGE)
    names = [CompletionItem(name) for name in known if name.startswith(incomplete)]
    return names or [CompletionItem(incomplete, type="dir")]


sweep_argument = click.argument("sweep", shell_complete=_complete_sweep)
_set_option = click.option(
    "--set", "assignments", multiple=True, metavar="A.B=VALUE", help="Set an option of the spec; repeatable."
)
name_option = click.option(
    "--name", help="Name of the sweep; by default that of the spec's file, with a number where it is taken."
)
storage_option = click.option(
    "--storage",
    default=DEFAULT_STORAGE,
    show_default=True,
    help="Where sweeps are kept: a folder, or a URI such as s3://bucket/sweeps.",
)
as_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


class Cluster(NamedTuple):
    """The cluster that a command is given.

    Attributes:
        address: Of its dashboard.
        file: Its YAML file.
    """

    address: str | None
    file: Path | None

    @property
    def is_given(self) -> bool:
        """Whether there is one."""
        return self.address is not None or self.file is not None


def cluster_options(command: Callable[..., None]) -> Callable[..., None]:
    """Adds the options that name a cluster; the command takes them as one :class:`Cluster`."""

    @functools.wraps(command)
    def with_cluster(*, address: str | None, cluster: Path | None, **options: Any) -> None:
        command(cluster=Cluster(address, cluster), **options)

    address = click.option("--address", help="The cluster's dashboard, http://HEAD:8265.")
    file = click.option(
        "--cluster",
        type=click.Path(path_type=Path, dir_okay=False),
        help="The cluster's YAML file, as `ray up` takes it; instead of --address.",
    )
    return address(file(with_cluster))


def set_options(command: Callable[..., None]) -> Callable[..., None]:
    """Adds ``--num-samples`` and ``--set``; the command takes both as assignments."""

    @functools.wraps(command)
    def with_assignments(*, num_samples: int | None, assignments: tuple[str, ...], **options: Any) -> None:
        if num_samples is not None:
            assignments += (f"num_samples={num_samples}",)
        command(assignments=assignments, **options)

    samples = click.option(
        "--num-samples", type=int, help="Configurations to draw in all, instead of the spec's num_samples."
    )
    return samples(_set_option(with_assignments))


def say(text: str, *, err: bool = False) -> None:
    """Prints text for people: no control characters of names, values or errors reach a terminal."""
    click.echo(printable(text), err=err)


def print_json(value: Any) -> None:
    """Prints a value as JSON."""
    click.echo(json.dumps(value, indent=2, default=str))
